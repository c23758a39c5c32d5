# The front door; meson and ninja do the work.
BUILD   ?= build
DESTDIR ?=
PREFIX  ?= /usr/local

all: build

help:
	@echo 'make demo     install what is needed, build, run containers from a registry image'
	@echo 'make check    install what is needed, build, run every test'
	@echo 'make bench    measure beside the peers (installs them)'
	@echo 'make guest-kernel  build a small kernel for guests, which --vm then uses: takes minutes'
	@echo 'make install  DESTDIR=, PREFIX=$(PREFIX)'
	@echo 'make fuzz     fuzz every target for FUZZ_SECONDS=60'
	@echo 'make lint format build clean'

deps:
	@scripts/install-deps

$(BUILD)/build.ninja:
	meson setup $(BUILD) --buildtype=debugoptimized --prefix=$(PREFIX)

build: deps $(BUILD)/build.ninja
	ninja -C $(BUILD)

demo: build
	scripts/demo

check: deps
	scripts/check.py

guest-kernel: deps $(BUILD)/build.ninja
	scripts/guest-kernel

bench: build
	bench/run

install: build
	meson configure $(BUILD) -Dprefix=$(PREFIX)
	ninja -C $(BUILD)
	meson install -C $(BUILD) --no-rebuild --strip $(if $(DESTDIR),--destdir $(DESTDIR))
	@[ ! -e $(BUILD)/src/bin/isle-guest-kernel ] || install -D -m 644 \
		$(BUILD)/src/bin/isle-guest-kernel $(DESTDIR)$(PREFIX)/bin/isle-guest-kernel

lint: build
	scripts/lint clang-tidy
	scripts/lint cppcheck

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

fuzz: deps
	scripts/fuzz

clean:
	rm -rf build build-asan build-fuzz build-kernel

.PHONY: all help deps build demo check guest-kernel bench install lint format fuzz clean
