# shellcheck shell=bash
# What every tool needs: where things are, how to say what goes wrong, and how
# to get a missing program.  Sourced, never run.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$(realpath -m "${BUILD:-$TOP/build}")
# A variant rmp* is a kernel with the patches of platform/ on top of the series, see
# Documentation/platform.md: they have a BUILD of their own, whose base is this tree.
SERIES_TREE=${SERIES_TREE:-}
if [[ ${VARIANT:-} == rmp* && -z $SERIES_TREE ]]; then
	[[ -z ${TOPICS:-} ]] || { echo "VARIANT=$VARIANT needs the whole series: do without TOPICS=" >&2; exit 1; }
	SERIES_TREE=$BUILD/linux BUILD=$BUILD/platform PATCHES=$TOP/platform
	export SERIES_TREE BUILD PATCHES
fi
# The tree that is built: the one that tools/tree made, but for tools/bisect.
LINUX=${KSRC:-$BUILD/linux}
PATCHES=$(realpath -m "${PATCHES:-$TOP/patches}")
# Which topics of it to apply; all of them if empty.
TOPICS=${TOPICS:-}
JOBS=${JOBS:-$(nproc)}
export LC_ALL=C TZ=UTC

# Nobody's git configuration, hooks or editor may change what is built from the
# patches or written to them.
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
export GIT_COMMITTER_NAME=queue GIT_COMMITTER_EMAIL=queue@localhost

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

note() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# The architecture of the test machine, as the kernel calls it: the image to boot, where
# all that is built for it goes, and the kernels to test.
ARCH=${ARCH:-x86}
# shellcheck disable=SC2034
case $ARCH in
x86 | x86_64)
	ARCH=x86 IMAGE=arch/x86/boot/bzImage OUT=$BUILD
	VARIANTS=${VARIANT:-plain debug plain+tdp_mmu=0 plain+npt=0} ;;
i386)
	IMAGE=arch/x86/boot/bzImage OUT=$BUILD/i386
	VARIANTS=${VARIANT:-i386} ;;
arm64)
	IMAGE=arch/arm64/boot/Image OUT=$BUILD/arm64
	VARIANTS=${VARIANT:-arm64} CROSS_COMPILE=${CROSS_COMPILE:-aarch64-linux-gnu-} ;;
*) die "ARCH=$ARCH: x86, i386 or arm64" ;;
esac
export ARCH CROSS_COMPILE=${CROSS_COMPILE:-}

# The Debian package of a program or file where the two have different names.
package_of() {
	case $1 in
	qemu-system-x86_64) echo qemu-system-x86 ;;
	qemu-system-aarch64) echo qemu-system-arm ;;
	aarch64-linux-gnu-gcc) echo gcc-aarch64-linux-gnu ;;
	sphinx-build) echo python3-sphinx ;;
	busybox) echo busybox-static ;;
	xz) echo xz-utils ;;
	depmod) echo kmod ;;
	dpkg-buildpackage) echo dpkg-dev ;;
	dh) echo debhelper ;;
	objdump) echo binutils ;;
	/usr/include/stdio.h) echo libc6-dev ;;
	/usr/aarch64-linux-gnu/include/stdio.h) echo libc6-dev-arm64-cross ;;
	*/libelf.h) echo libelf-dev ;;
	*/glib.h) echo libglib2.0-dev ;;
	*/ensurepip/*) echo python3-venv ;;
	*/bios-256k.bin) echo seabios ;;
	*/linuxboot_dma.bin) echo qemu-system-data ;;
	ninja) echo ninja-build ;;
	*/opensslv.h) echo libssl-dev ;;
	*/uuid.h) echo uuid-dev ;;
	*/debian-archive-keyring.gpg) echo debian-archive-keyring ;;
	*) echo "$1" ;;
	esac
}

# need PROGRAM|FILE...: install what is not there, or say what to install.
need() {
	local want packages=()

	for want; do
		case $want in
		/*) [[ -e $want ]] ;;
		*) command -v "$want" >/dev/null ;;
		esac || packages+=("$(package_of "$want")")
	done
	[[ ${#packages[@]} -gt 0 ]] || return 0

	if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
		die "missing: ${packages[*]} (names of Debian packages); install them and try again"
	fi
	note "installing ${packages[*]}"
	mkdir -p "$BUILD"
	apt_install "${packages[@]}" ||
		{ apt-get update && apt_install "${packages[@]}"; } >>"$BUILD/apt.log" 2>&1 ||
		die "cannot install ${packages[*]}: see $BUILD/apt.log (network? disk space?)"
}

# apt_private DIR COMMAND...: with the configuration that apt_configure made there.
apt_private() {
	local dir=$1

	shift
	APT_CONFIG=$dir/apt.conf "$@" >>"$dir/log" 2>&1
}

# apt_configure DIR MIRROR SUITE COMPONENT [ARCHITECTURE]: a configuration of apt in
# DIR for Debian's archive, that leaves /etc/apt, the machine's package lists and its
# architectures alone.
apt_configure() {
	local dir=$1 mirror=$2 keyring=/usr/share/keyrings/debian-archive-keyring.gpg host

	need apt-get "$keyring"
	rm -rf "$dir"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/download"
	# The machine may have a mirror of its own; Ubuntu's does not carry Debian.
	host=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
		grep -v '^ *#' | grep -om1 'https\?://[^ ]*/debian/\?\( \|$\)' | tr -d ' ' || true)
	echo "deb [signed-by=$keyring] ${host:-$mirror} $3 $4" >"$dir/sources.list"
	cat >"$dir/apt.conf" <<-EOF
		Dir::Etc::SourceList "$dir/sources.list";
		Dir::Etc::SourceParts "-";
		Dir::State::Lists "$dir/lists";
		Dir::Cache "$dir/cache";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
		Acquire::Retries "3";
		APT::Update::Error-Mode "any";
	EOF
	[[ -z ${5:-} ]] || printf 'APT::%s "%s";\n' Architecture "$5" Architectures "$5" >>"$dir/apt.conf"
}

apt_install() {
	DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends "$@" >>"$BUILD/apt.log" 2>&1
}

# need_space MIB WHAT: a full disk in the middle of a build is hard to read.
need_space() {
	local free

	mkdir -p "$BUILD"
	free=$(df -Pm "$BUILD" | awk 'NR == 2 { print $4 }')
	[[ $free -ge $1 ]] ||
		die "$2 needs $1 MiB in $BUILD, which has $free MiB: free some or set BUILD="
}

# took SECONDS: as people read it.
took() {
	printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# show_progress LOG: how many steps of a build there are in the log, of how many if it was
# complete before, and for how long it runs: on a terminal all the time, elsewhere every
# minute.  To be killed.
show_progress() {
	local log=$1 total now silence every=60 start=$SECONDS

	total=$(cat "$log.steps" 2>/dev/null || echo 0)
	[[ ! -t 2 ]] || every=2
	# A sleep would outlive this.
	exec {silence}<> <(:)
	while ! read -rt $every -u "$silence"; do
		now=$(grep -c '^  [A-Z]' "$log" || true)
		now="$now$( ((now > total)) || echo " of $total") steps, $(took $((SECONDS - start)))"
		if [[ -t 2 ]]; then printf '\r%s: %s ' "${0##*/}" "$now" >&2; else note "$now"; fi
	done
}

# run_logged LOG COMMAND...: the log is for failures, its last lines for people, who also get
# to know how far it is, and how long it took if that was long.
run_logged() {
	local log=$1 rc=0 steps progress start=$SECONDS

	shift
	show_progress "$log" </dev/null &
	progress=$!
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	kill $progress
	wait $progress 2>/dev/null || true
	[[ ! -t 2 || $((SECONDS - start)) -lt 2 ]] || printf '\r\033[K' >&2
	if [[ $rc != 0 ]]; then
		tail -n 25 "$log" >&2
		die "failed: $1 $2 ...; the whole log is $log"
	fi
	steps=$(grep -c '^  [A-Z]' "$log" || true)
	[[ $steps -le $(cat "$log.steps" 2>/dev/null || echo 0) ]] || echo "$steps" >"$log.steps"
	[[ $((SECONDS - start)) -lt 30 ]] || note "done after $(took $((SECONDS - start)))"
}

# One builder at a time in one BUILD: two at once would poison each other.
lock_build() {
	mkdir -p "$BUILD"
	exec 9>"$BUILD/.lock.$1"
	flock -n 9 || { note "waiting for another 'make' in $BUILD"; flock 9; }
}

# sha256 FILE (- is what is piped in)
sha256() {
	sha256sum "$1" | cut -d" " -f1
}

# The machine that runs the plain kernel, as a hash: results of another one don't count.
plain_machine() {
	fragments plain | xargs -d '\n' cat "$TOP/tools/vm" "$TOP/tests/init" | sha256 -
}

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

# kmake OUTPUT ARGS...: make in the kernel tree; what is built must not depend
# on who builds it, when, and where.
kmake() {
	local out=$1 cc=${CROSS_COMPILE:-}gcc

	shift
	if command -v ccache >/dev/null; then
		cc="ccache $cc"
		export CCACHE_BASEDIR=$BUILD CCACHE_NOHASHDIR=1
		export CCACHE_COMPILERCHECK=content
	fi
	make --no-print-directory -C "$LINUX" O="$out" -j"$JOBS" CC="$cc" LOCALVERSION= \
		KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' \
		KBUILD_BUILD_USER=queue KBUILD_BUILD_HOST=localhost "$@"
}

# A variant is a kernel, as in configs/, and maybe how KVM is to manage the guest's memory
# there, as in plain+tdp_mmu=0: kernel_of plain+tdp_mmu=0 is plain, mmu_of it is tdp_mmu=0.
kernel_of() {
	echo "${1%%+*}"
}

mmu_of() {
	[[ $1 != *+* ]] || echo "${1#*+}"
}

# fragments VARIANT: its configuration, as paths.
fragments() {
	local names kernel

	kernel=$(kernel_of "$1")
	case $kernel in
	arm64 | i386) names=(common "$kernel") ;;
	none) names=(common x86 none) ;;
	rmp) names=(common x86 sev plain) ;;
	rmp-*) names=(common x86 sev "${kernel#rmp-}") ;;
	*) names=(common x86 sev "$kernel") ;;
	esac
	printf "$TOP/configs/%s.config\n" "${names[@]}"
}

# private_memory VARIANT: can VMs there have private memory, whose attributes somebody owns?
private_memory() {
	fragments "$1" | xargs -d '\n' cat 2>/dev/null | grep -x CONFIG_KVM_SW_PROTECTED_VM=y >/dev/null
}

# in_star VARIANT: does a * in a list of tests stand for this one, too?  It does for the
# kernels with private memory, as KVM manages memory by default.
in_star() {
	private_memory "$1" && [[ -z $(mmu_of "$1") ]]
}

# listed_tests LIST...: those that they have for VARIANTS.
listed_tests() {
	local variant known=' '

	for variant in $VARIANTS; do
		known="$known$variant "
		! in_star "$variant" || known="$known* "
	done
	awk -v known="$known" '!/^#/ && NF && index(known, " " $2 " ") && !seen[$1]++ { print $1 }' "$@"
}

# kconfig OUTPUT LOG FRAGMENT...: tinyconfig with the fragments on top, each line
# of which is looked up in the result: merge_config.sh and olddefconfig drop what
# Kconfig refuses without failing.
kconfig() {
	local out=$1 log=$2 line refused=''

	shift 2
	run_logged "$log" kmake "$out" tinyconfig
	cat "$@" >"$out/fragment"
	run_logged "$log" "$LINUX/scripts/kconfig/merge_config.sh" -m -O "$out" "$out/.config" "$out/fragment"
	run_logged "$log" kmake "$out" olddefconfig

	while read -r line; do
		case $line in
		CONFIG_*=n) ! grep -q "^${line%n}" "$out/.config" ;;
		CONFIG_*) grep -qFx "$line" "$out/.config" ;;
		"# CONFIG_"*" is not set")
			line=${line#\# }
			! grep -q "^${line%% *}=" "$out/.config" ;;
		esac || refused="$refused $line"
	done <"$out/fragment"
	[[ -z $refused ]] || die "Kconfig refuses, of ${*##*/}:$refused"
}
