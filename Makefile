# Commands; what they do is in tools/ and bench/.  `make help` lists them.

# What the tools read from the environment.
export BUILD BASE BASE_SHA256 FORCE TOPICS ARCH VARIANT OWNER TEST MUTANT ACCEL JOBS LIMIT BASE_SERIES UPDATE FIGURE KERNEL SIZE STEPS CONFIG SUITE
BUILD ?= build

# Local work is dropped by a command that is there to do so, not by one that makes the tree first.
ifneq ($(filter-out tree export qemu,$(MAKECMDGOALS)),)
override FORCE :=
endif

# The tools run parallel builds themselves and wait for each other.
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

.PHONY: help run qemu check tree export kernel selftests selfcheck lint kunit model mutants bisect topics mail debian stress regress bench profile

help: ## list what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@sed -n 's/^#v \(.*\)/  \1/p' Makefile

run: ## build everything and watch a guest and its VMM convert memory
	@tools/run

qemu: ## watch a Linux guest under QEMU keep its memory private; ten minutes once that is built
	@tools/qemu

check: ## run the selftests, on each kernel, under each owner of the attributes; half an hour
	@tools/check

kunit: ## run the kernel's tests of the attributes alone; seconds once their kernel stands
	@tools/kunit

model: ## check the protocol of conversions, as a model, exhaustively; minutes
	@tools/model

mutants: ## see that the tests notice small wrong changes to the kernel; an hour
	@tools/mutants

stress: export VARIANT := $(or $(VARIANT),stress kcsan)
stress: export OWNER := gmem
stress: export LIST := tests/stress.list
stress: ## run the tests that look for rare failures, on kernels that see most; hours
	@tools/check

bench: ## measure what conversions cost, and compare with Documentation/bench.md; a quarter of an hour
	@bench/bench

profile: ## show which functions execute the instructions of a figure of the benchmark
	@bench/profile $(FIGURE)

regress: ## run all KVM selftests on the base and on the series, and compare; an hour
	@tools/regress

tree: ## make BUILD/linux: the base with the series on top
	@tools/tree

export: ## write the commits of BUILD/linux back to patches/
	@tools/export

kernel: tree ## build the kernel of each VARIANT
	@tools/kernel

selftests: tree ## build the KVM selftests that `make check` runs
	@tools/selftests

lint: tree ## check patches, scripts and lists; a minute or two
	@tools/lint

selfcheck: tree ## show that the harness sees hangs, panics, splats and failures; minutes
	@tools/selfcheck

bisect: tree ## build every patch in every way that it can break; hours
	@tools/bisect

topics: ## run `make check` on each prefix of the topics of patches/series; an hour or two
	@tools/topics

mail: ## write the patches of TOPICS= as they are to be mailed, with their cover
	@tools/mail

debian: ## build Debian packages of the kernel, install them, boot what they installed; as root
	@tools/debian

#v
#v BUILD=build             where everything is made
#v BASE=                   kernel git tree or tarball to use instead of the file `base`
#v BASE_SHA256=            what the tarball must hash to
#v FORCE=1                 make tree: drop local work in BUILD/linux; make export: overwrite patches/;
#v                         make qemu: drop local work in BUILD/qemu/{src,linux}; others ignore it
#v TOPICS="fixes ccp ..."  make a tree of these topics of patches/series, and test it; make mail: write
#v                         these; make topics: test the beginnings of the series that end with one of these
#v ARCH=x86                of the test machine: make check ARCH=arm64, ARCH=i386
#v VARIANT="plain debug plain+tdp_mmu=0 plain+npt=0"
#v                         kernels to build and test, see configs/; none: no private memory;
#v                         rmp, psp, mirror, rmp-debug...: with the patches of platform/, by
#v                         check, tree, export, kernel, selftests, lint and kunit;
#v                         +tdp_mmu=0: without the TDP MMU; +npt=0: with shadow paging
#v OWNER="vm gmem default" owners of the attributes to test: vm the VM, gmem the guest_memfd;
#v                         default: as the kernel has it, for what has a + in its name
#v TEST=                   only these tests
#v MUTANT=                 make mutants: only these, of tests/mutants*.list
#v BASE_SERIES=            make bench: compare with the series of this git revision
#v STEPS=                  make qemu: only these, of qemu/steps
#v UPDATE=1                make bench, make qemu: write Documentation/bench.*, qemu-memory.svg
#v FIGURE=                 make profile: which, as in Documentation/bench.tsv
#v KERNEL=                 make profile: of the series, or with KERNEL=base of the base, for guest faults
#v SIZE=1M                 make profile: the range, for figures that do not name it
#v LIMIT=                  make regress, make mutants: seconds for each test (120); make profile: for each
#v                         profile (30); make run (240), make qemu (300): seconds of silence
#v                         after which the machine counts as hung
#v CONFIG=                 make debian: the kernel's configuration, a file
#v SUITE=bookworm          make debian: the Debian to install into
#v ACCEL=auto              auto, tcg or kvm
#v JOBS=                   parallel jobs; default: the number of processors
