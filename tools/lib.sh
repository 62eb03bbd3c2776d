# shellcheck shell=bash
# What every tool needs: where things are, and how to say how it goes.  Sourced, never run,
# and brings the rest of the library along, which is in tools/lib/ by concern.

set -euo pipefail

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$(realpath -m "${BUILD:-$TOP/build}")
# A variant rmp*, psp* or mirror* is a kernel with the patches of platform/ on top of the series, see
# Documentation/platform.md: they have a BUILD of their own, whose base is this tree.
SERIES_TREE=${SERIES_TREE:-}
# These know which kernels they want; mutants only asks whether it is those of platform/.
[[ ! ${0##*/}=${VARIANT:-} =~ ^(bench|bisect|debian|model|profile|regress|run|selfcheck)=|^mutants=[^r] ]] || unset VARIANT
platform=0 others=0
for variant in ${VARIANT:-}; do
	if [[ $variant =~ ^(rmp|psp|mirror) ]]; then platform=1; else others=1; fi
done
if [[ $platform == 1 && -z $SERIES_TREE ]]; then
	[[ $others == 0 ]] || { echo "VARIANT=$VARIANT: kernels with the patches of platform/ and others need a command each" >&2; exit 1; }
	[[ -z ${TOPICS:-} ]] || { echo "VARIANT=$VARIANT needs the whole series: do without TOPICS=" >&2; exit 1; }
	SERIES_TREE=$BUILD/linux BUILD=$BUILD/platform PATCHES=$TOP/platform
	export SERIES_TREE BUILD PATCHES
fi
# Local work is dropped by a command that is there to do so, not by one that makes the tree first.
[[ ${0##*/} =~ ^(tree|export|qemu|qemu-build)$ ]] || unset FORCE
# Internal, i.e. not in `make help`: for tools that call others, and for tools/selfcheck.
#   KSRC           the tree that is built: BUILD/linux, or else a work tree of it or of the base
#   PATCHES        the patches: patches/ or platform/
#   SERIES_TREE    the tree that those of platform/ go on top of
#   BASE_TREE      the tree whose base is to be taken, for another state of the series in a BUILD of its own
#   TIP            tools/export: the branch to take, for tools/tree
#   LIST           tools/check: tests/check.list
#   SELFTESTS      tools/check: programs to take, instead of building them
#   MUTANTS        tools/mutants: tests/mutants.list
#   VM_CPUS, VM_MEM, VM_MONITOR  tools/vm, which explains them
#   CROSS_COMPILE  the compiler's prefix, if not the usual one for ARCH
# shellcheck disable=SC2034
LINUX=${KSRC:-$BUILD/linux}
PATCHES=$(realpath -m "${PATCHES:-$TOP/patches}")
# Which topics of it to apply; all of them if empty.
TOPICS=${TOPICS:-}
JOBS=${JOBS:-$(nproc)}
export LC_ALL=C TZ=UTC

# Nobody's git configuration, hooks or editor may change what is built from the
# patches or written to them; this one is the tools' own.
export GIT_CONFIG_GLOBAL=$TOP/tools/lib/gitconfig GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
export GIT_COMMITTER_NAME=queue GIT_COMMITTER_EMAIL=queue@localhost

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

note() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# usage: what the script's header says of it, for who calls it in another way.
usage() {
	sed -n '/^# usage:/,/^#\?$\|^[^#]/ s/^# //p' "$0" >&2
	exit 2
}

# arguments "OPTION..." ARGUMENT...: of a script that takes one of these options or nothing.
arguments() {
	[[ $# == 1 || $# == 2 && " $1 " == *" $2 "* ]] || usage
}

# The architecture of the test machine, as the kernel calls it: the image to boot, where
# all that is built for it goes, what emulates it, and the kernels to test.
ARCH=${ARCH:-x86}
# shellcheck disable=SC2034
case $ARCH in
x86 | x86_64)
	ARCH=x86 IMAGE=arch/x86/boot/bzImage OUT=$BUILD EMULATOR=qemu-system-x86_64
	VARIANTS=${VARIANT:-plain debug plain+tdp_mmu=0 plain+npt=0} ;;
i386)
	IMAGE=arch/x86/boot/bzImage OUT=$BUILD/i386 EMULATOR=qemu-system-x86_64
	VARIANTS=${VARIANT:-i386} ;;
arm64)
	IMAGE=arch/arm64/boot/Image OUT=$BUILD/arm64 EMULATOR=qemu-system-aarch64
	VARIANTS=${VARIANT:-arm64} CROSS_COMPILE=${CROSS_COMPILE:-aarch64-linux-gnu-} ;;
*) die "ARCH=$ARCH: x86, i386 or arm64" ;;
esac
export ARCH CROSS_COMPILE=${CROSS_COMPILE:-}

# mmu_parameters VARIANT: those of the kernel's command line that say how KVM is to manage memory.
mmu_parameters() {
	case $(mmu_of "$1") in
	'') ;;
	tdp_mmu=0) echo kvm.tdp_mmu=0 ;;
	npt=0) echo kvm_amd.npt=0 kvm_intel.ept=0 ;;
	*) die "VARIANT=$1: +tdp_mmu=0 or +npt=0, if anything" ;;
	esac
}

# known_variants VARIANT...: die if one of them can't be built here, before any is.
known_variants() {
	local variant kernel fragment fragments

	for variant; do
		kernel=$(kernel_of "$variant")
		mapfile -t fragments < <(fragments "$variant")
		for fragment in "${fragments[@]}"; do
			[[ -r $fragment ]] || die "VARIANT=$variant: no $fragment; there is: $(cd "$TOP/configs" && echo ./*.config)"
		done
		[[ " ${fragments[*]} " == *"/$ARCH.config "* ]] || die "VARIANT=$variant is not for ARCH=$ARCH"
		[[ $kernel == rmp* && -n $SERIES_TREE || $kernel != rmp* && -z $SERIES_TREE ]] ||
			die "VARIANT=$variant: kernels with the patches of platform/ and others are built in different trees, and not by one command"
		mmu_parameters "$variant" >/dev/null
	done
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
	while ! read -rt $every -u "$silence" && kill -0 $$; do
		now=$(grep -c '^  [A-Z]' "$log" || true)
		if [[ $now == 0 ]]; then now=; elif ((now > total)); then now="$now steps, "; else now="$now of $total steps, "; fi
		now="$now$(took $((SECONDS - start)))"
		if [[ -t 2 ]]; then printf '\r%s: %s ' "${0##*/}" "$now" >&2; else note "$now"; fi
	done
}

# run_logged LOG COMMAND...: the log is for failures, its last lines for people, who also get
# to know how far it is, and how long it took if that was long.
run_logged() {
	local log=$1 rc=0 steps progress start=$SECONDS

	shift
	# Not to keep the lock, nor to go on without this.
	show_progress "$log" </dev/null 9>&- &
	progress=$!
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	kill $progress 2>/dev/null || true
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

# vm_lines ARGUMENT...: of tools/vm, and its exit code as the last line, "@@ vm 0".  For a
# process substitution, whose script says `trap vm_end EXIT` so as not to leave it behind.
vm_lines() {
	local machine rc=0

	"$TOP/tools/vm" "$@" </dev/null &
	machine=$!
	trap 'kill $machine 2>/dev/null' EXIT
	wait $machine || rc=$?
	trap - EXIT
	echo "@@ vm $rc"
}

vm_end() {
	kill "$!" 2>/dev/null || true
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

for part in packages series kbuild; do
	# shellcheck source=/dev/null
	. "$TOP/tools/lib/$part.sh"
done
