# shellcheck shell=bash
# How to get a missing program, and packages from Debian's archive.  Part of tools/lib.sh.

# The Debian package of a program or file where the two have different names.
package_of() {
	case $1 in
	qemu-system-x86_64) echo qemu-system-x86 ;;
	qemu-system-aarch64) echo qemu-system-arm ;;
	aarch64-linux-gnu-gcc) echo gcc-aarch64-linux-gnu ;;
	sphinx-build) echo python3-sphinx ;;
	busybox) echo busybox-static ;;
	xz) echo xz-utils ;;
	flock) echo util-linux ;;
	dpkg-deb) echo dpkg ;;
	apt-get) echo apt ;;
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
	gnuplot) echo gnuplot-nox ;;
	*/opensslv.h) echo libssl-dev ;;
	*/libdw.h) echo libdw-dev ;;
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

# need_machine: what tools/vm boots the test machine with, for a tool to look for it before it
# builds for long.
need_machine() {
	local version

	need "$EMULATOR" cpio
	version=$("$EMULATOR" --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')
	printf '7.2\n%s\n' "$version" | sort -CV || die "QEMU $version is too old to emulate virtualization: 7.2 is needed"
	"$TOP/tools/busybox" >/dev/null
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
