# shellcheck shell=bash
# BUILD/linux from the base: fetched, verified, and committed with the tag `base`, with
# nothing of the series yet.  For tools/tree alone, which holds the lock, and knows that
# there is no local work.
#
# The platform's base is what is committed in BUILD/linux of the series.  Another state of
# the series has the base of BASE_TREE.
#
# environment: BASE=<kernel git tree or tarball>   instead of the file `base`
#              BASE_SHA256=<hash>                  what the tarball must have

. "$TOP/base"

# The other tree, and what of it is the base.
other=${SERIES_TREE:-${BASE_TREE:-}} other_base=base
[[ -z $SERIES_TREE ]] || other_base=HEAD

# The subject of the commit `base` names its origin, so nothing else needs to.
origin() {
	if [[ -z ${BASE:-} ]]; then
		echo "Debian $package_version"
	elif git -C "$BASE" rev-parse -q --git-dir >/dev/null 2>&1; then
		echo "git $(base_commit)"
	elif [[ -f $BASE ]]; then
		echo "tarball $(sha256 "$BASE")"
	else
		die "BASE=$BASE is neither a git tree nor a tarball"
	fi
}

# The newest stable tag of the wanted version, or else whatever is checked out.
base_commit() {
	local tag

	tag=$(git -C "$BASE" tag -l "v$version.*[0-9]" --sort=-v:refname | grep -vm1 rc || true)
	git -C "$BASE" rev-parse "${tag:-HEAD}^{commit}"
}

# Is the tree that is there made from this base?
base_is_current() {
	local subject origin

	if [[ -n $other ]]; then
		[[ $(kgit rev-parse base) == $(git -C "$other" rev-parse "$other_base") ]]
		return
	fi
	subject=$(kgit log -1 --format=%s base)
	# A base that a person chose stays until they choose another.
	[[ -n ${BASE:-} || $subject == *"(Debian "* ]] || return 0
	origin=$(origin) || exit
	[[ $subject == *"$origin"* ]]
}

# fetch_deb FILE: the package by way of apt, which checks the archive's signature.
fetch_deb() {
	local apt=$BUILD/apt found

	apt_configure "$apt" "$mirror" "$suite" "$component"
	note "fetching $package $package_version"
	apt_private "$apt" apt-get update ||
		die "cannot read the index of $suite: network? (log: $apt/log); without one, 'make tree BASE=<kernel git tree or tarball>'"
	if ! (cd "$apt/download" && apt_private "$apt" apt-get download "$package=$package_version"); then
		found=$(APT_CONFIG=$apt/apt.conf apt-cache madison "$package" |
			awk -F' *[|] *' -v v="$version." 'index($2, v) == 1 { print $2; exit }')
		[[ -n $found && $found != "$package_version" ]] ||
			die "cannot download $package $package_version: see $apt/log, or 'make tree BASE=<kernel git tree or tarball>'"
		note "WARNING: $package $package_version has left the archive; taking $found, which only the archive's signature vouches for"
		(cd "$apt/download" && apt_private "$apt" apt-get download "$package=$found") ||
			die "cannot download $package $found: see $apt/log"
	fi
	mv "$apt"/download/*.deb "$1"
}

check_hash() {
	[[ $2 == "$3" ]] ||
		die "$1 has the hash $2, not $3: remove it and try again, or look at who changed it"
}

# unpack_debian DIR: the kernel's source; prints what it is.
unpack_debian() {
	local deb=$BUILD/$package.deb found

	# These can't be had everywhere.
	[[ -e $deb ]] || type -P apt-get dpkg-deb >/dev/null ||
		die "the source comes from Debian's archive, by apt-get and dpkg-deb, which this machine doesn't have: 'make tree BASE=<kernel git tree or tarball>'"
	need dpkg-deb xz
	if [[ ! -e $deb ]]; then
		fetch_deb "$deb.part"
		mv "$deb.part" "$deb"
	fi
	found=$(dpkg-deb -f "$deb" Version)
	if [[ $found == "$package_version" ]]; then
		check_hash "$deb" "$(sha256 "$deb")" "$deb_sha256"
		echo "Debian $package_version"
	else
		# A newer version has no hash here; apt has checked the archive's.
		note "WARNING: using $package $found instead of $package_version"
		echo "Debian $package_version replaced by $found"
	fi
	dpkg-deb --fsys-tarfile "$deb" | tar -xO "./$tarball" >"$1.tar.xz"
	if [[ $found == "$package_version" ]]; then
		check_hash "$tarball" "$(sha256 "$1.tar.xz")" "$tarball_sha256"
	fi
	tar -xf "$1.tar.xz" -C "$1" --strip-components=1
	rm "$1.tar.xz"
}

# unpack DIR: the base; prints what it is.
unpack() {
	local origin

	origin=$(origin)
	case $origin in
	Debian*)
		unpack_debian "$1"
		return ;;
	git*)
		git -C "$BASE" archive "${origin#git }" | tar -x -C "$1" ;;
	tarball*)
		[[ -z ${BASE_SHA256:-} ]] || check_hash "$BASE" "${origin#tarball }" "$BASE_SHA256"
		tar -xf "$BASE" -C "$1" --strip-components=1 ;;
	esac
	echo "$origin"
}

# clone_base: as BUILD/linux, instead of fetching it once more.  One that is there stays, as what
# was built there would be built again.
clone_base() {
	local new=$LINUX

	if [[ ! -e $LINUX ]]; then
		need_space 10000 "building another state of the series"
		new=$LINUX.new
		rm -rf "$new"
		git clone -q --template= --no-checkout "$other" "$new"
		git -C "$new" config gc.auto 0
		git -C "$new" config core.untrackedCache true
	fi
	git -C "$new" fetch -q --no-tags "$other" "$other_base"
	echo applying >"$new/.git/series-stamp"
	git -C "$new" tag -f base FETCH_HEAD >/dev/null
	[[ $new != "$LINUX" ]] || return 0
	git -C "$new" checkout -q -B series base
	mv "$new" "$LINUX"
}

make_base() {
	local new=$BUILD/linux.new name found

	if [[ -n $other ]]; then
		clone_base
		return
	fi

	need git tar make
	need_space 6000 "the kernel source"
	rm -rf "$new" "$new.tar.xz"
	mkdir -p "$new"
	name=$(set -e; unpack "$new")

	found=$(make -s -C "$new" kernelversion 2>/dev/null) || die "the base is no kernel source"
	[[ $found == "$version".* || $found == "$version" ]] ||
		die "the base is Linux $found, but the series is made for $version.y: 'make tree BASE=<such a tree or tarball>'"

	# Debian's packaging repository ignores the source, and so would git: a new file
	# would be left out of a commit without a word.
	[[ ! -e $new/.gitignore ]] ||
		sed -i '/^# Debian packaging: ignore everything/,$d' "$new/.gitignore"

	note "committing the base, Linux $found"
	git init -q --template= -b series "$new"
	git -C "$new" config gc.auto 0
	git -C "$new" config core.untrackedCache true
	# One pack instead of one file for each of the kernel's files.
	git -C "$new" -c core.bigFileThreshold=1 -c core.compression=1 add -f -A
	GIT_AUTHOR_NAME=queue GIT_AUTHOR_EMAIL=queue@localhost \
	GIT_AUTHOR_DATE='1970-01-02T00:00:00+0000' GIT_COMMITTER_DATE='1970-01-02T00:00:00+0000' \
		git -C "$new" commit -q -m "Linux $found ($name)"
	git -C "$new" tag base
	if [[ ! -e $LINUX ]]; then
		mv "$new" "$LINUX"
		return
	fi
	# Another base for a tree in which people may have branches, stashes and work trees.
	kgit fetch -q --no-tags "$new" HEAD
	echo applying >"$LINUX/.git/series-stamp"
	kgit checkout -q -f -B series FETCH_HEAD
	kgit tag -f base FETCH_HEAD >/dev/null
	rm -rf "$new"
}
