# shellcheck shell=bash
# The patches, by topic, and the trees that they are applied to.  Part of tools/lib.sh.

# The patches of the series that are to be applied, in order, as patches/series has them: in
# the folder of their topic, if they have one.
series_names() {
	local line

	[[ -e $PATCHES/series ]] || return 0
	while read -r line _; do
		[[ -z $line || $line == \#* ]] && continue
		[[ -z $TOPICS || " $TOPICS " == *" ${line%/*} "* ]] || continue
		printf '%s\n' "$line"
	done <"$PATCHES/series"
}

# The same as paths, of files that are there.
series_files() {
	local name

	series_names | while read -r name; do
		[[ -r $PATCHES/$name ]] || die "$PATCHES/series names $name, which is not there"
		printf '%s\n' "$PATCHES/$name"
	done
}

# The topics of the series, in order; twice, if they are in two pieces.
series_topics() {
	sed -n 's|^\([^# ][^ ]*\)/.*|\1|p' "$PATCHES/series" | uniq
}

# need_topic NAME...: die if one of these will not be there, before anything is built.
need_topic() {
	local topic topics

	topics=$(series_names | sed -n 's|/[^/]*$||p' | uniq | xargs)
	for topic; do
		[[ " $topics " == *" $topic "* ]] ||
			die "this needs the topic $topic, which ${TOPICS:+TOPICS=$TOPICS of }$PATCHES/series does not have"
	done
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

# worktree TREE DIR: a work tree of TREE, at its base if it is new.  One whose TREE is gone
# is no tree any more.
worktree() {
	[[ -e $2/.git ]] && git -C "$2" rev-parse 2>/dev/null && return
	rm -rf "$2"
	git -C "$1" worktree prune
	mkdir -p "${2%/*}"
	git -C "$1" worktree add -q --detach "$2" base
}

# base_worktree DIR: the base, with nothing of the series, as DIR/linux
base_worktree() {
	worktree "$LINUX" "$1/linux"
	git -C "$1/linux" checkout -q --detach "$(kgit rev-parse base)"
}
