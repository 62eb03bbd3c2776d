# shellcheck shell=bash
# The patches, by topic, and the trees that they are applied to.  Part of tools/lib.sh.

# The patches of the series that are to be applied, in order, as paths.  In the folder of
# their topic, if they have one.
series_files() {
	local line

	[[ -e $PATCHES/series ]] || return 0
	while read -r line _; do
		[[ -z $line || $line == \#* ]] && continue
		[[ -z $TOPICS || " $TOPICS " == *" ${line%/*} "* ]] || continue
		printf '%s\n' "$PATCHES/$line"
	done <"$PATCHES/series"
}

# The topics of the series, in order; twice, if they are in two pieces.
series_topics() {
	sed -n 's|^\([^# ][^ ]*\)/.*|\1|p' "$PATCHES/series" | uniq
}

# What the patches are, as "hash name", no matter in which topic.
patch_hashes() {
	series_files | xargs -r -d '\n' sha256sum | sed 's|  .*/| |' | sort
}

series_hash() {
	{ series_files; series_files | xargs -r -d '\n' cat; } | sed "s|^$PATCHES/||" | sha256 -
}

kgit() {
	git -C "$LINUX" "$@"
}

# base_worktree DIR: the base, with nothing of the series, as DIR/linux
base_worktree() {
	mkdir -p "$1"
	kgit worktree prune
	[[ -e $1/linux ]] || kgit worktree add -q --detach "$1/linux" base
	git -C "$1/linux" checkout -q --detach "$(kgit rev-parse base)"
}

# clone_base NEWBUILD: for tools/tree to apply another series there.  The base is the
# same: take the commit instead of fetching it once more.
clone_base() {
	local tree=$1/linux

	mkdir -p "$1"
	[[ ! -e $tree ]] || return 0
	(BUILD=$1 need_space 10000 "building another state of the series")
	rm -rf "$tree.new"
	git clone -q --template= --no-checkout "$LINUX" "$tree.new"
	git -C "$tree.new" config gc.auto 0
	git -C "$tree.new" config core.untrackedCache true
	git -C "$tree.new" checkout -q -B series base
	# For tools/tree: the series is still to be applied.
	echo applying >"$tree.new/.git/series-stamp"
	mv "$tree.new" "$tree"
}
