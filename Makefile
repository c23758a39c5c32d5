# The front door; meson and ninja do the work.
BUILD   ?= build
DESTDIR ?=
PREFIX  ?= /usr/local

all: build

help:
	@echo 'make demo     install what is needed, build, run containers from a registry image'
	@echo 'make check    install what is needed, build, run every test'
	@echo 'make bench    measure beside the peers (installs them)'
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

bench: build
	bench/run

install: build
	meson configure $(BUILD) -Dprefix=$(PREFIX)
	ninja -C $(BUILD)
	meson install -C $(BUILD) --no-rebuild --strip $(if $(DESTDIR),--destdir $(DESTDIR))

lint: build
	scripts/lint clang-tidy
	scripts/lint cppcheck

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

fuzz: deps
	scripts/fuzz

clean:
	rm -rf build build-asan build-fuzz

.PHONY: all help deps build demo check bench install lint format fuzz clean
