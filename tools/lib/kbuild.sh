# shellcheck shell=bash
# Variants, their configurations, who owns the attributes, and how to build in a kernel tree.  Part of tools/lib.sh.

# The machine that runs the plain kernel, as a hash: results of another one don't count.
plain_machine() {
	fragments plain | xargs -d '\n' cat "$TOP/tools/vm" "$TOP/tests/init" | sha256 -
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
# psp and mirror boot the kernel of rmp in other ways.
kernel_of() {
	sed 's/+.*//; s/^\(psp\|mirror\)/rmp/' <<<"$1"
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
	stress | rmp-stress) names=(common x86 sev debug stress) ;;
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
# kernels with private memory, as KVM manages memory by default.  On psp and mirror, most
# tests would see nothing of that, or could not run.
in_star() {
	private_memory "$1" && [[ -z $(mmu_of "$1") && $1 != psp* && $1 != mirror* ]]
}

# owner_can_be_chosen: does the kernel that is built have kvm.vm_memory_attributes?
owner_can_be_chosen() {
	grep -rqsw vm_memory_attributes "$LINUX/virt/kvm" "$LINUX/arch/x86/kvm"
}

# known_owner NAME: may the attributes of memory be owned by it?  vm is the VM, gmem the
# guest_memfd, default who it is if nobody tells the kernel.
known_owner() {
	[[ $1 == vm || $1 == gmem || $1 == default ]]
}

# wanted_owners DEFAULT: those of OWNER, or else these.
wanted_owners() {
	local owner

	for owner in ${OWNER:-}; do
		known_owner "$owner" || die "OWNER=$owner: vm, gmem or default"
	done
	echo "${OWNER:-$1}"
}

# listed_tests LIST...: those that they have for VARIANTS.
listed_tests() {
	local variant known=' '

	for variant in $VARIANTS; do
		known="$known$variant "
		! in_star "$variant" || known="$known* "
	done
	awk -v known="$known" '
		!/^[#@]/ {
			n = split($2, variants, ",")
			for (i = 1; i <= n; i++) if (index(known, " " variants[i] " ") && !seen[$1]++) print $1
		}' "$@"
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
