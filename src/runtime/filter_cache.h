/* Compiled seccomp filters, kept for the next container with the same profile.
 *
 * Compiling Docker's profile takes libseccomp 9 ms, reading the result 0.1 ms.
 * ROOT/.seccomp (0700) has FILTER_CACHE_SLOTS files; the slot is a hash of the
 * profile. A file holds the whole profile it was made from beside the program,
 * and is used only where that is equal to the last byte, so neither a collision
 * of hashes nor a foreign file gives a container another's filter. Files are
 * replaced by rename, without fsync: what a crash loses is compiled again.
 *
 * Layout, native byte order: struct filter_cache_header, key, instructions. */
#pragma once

#include "base/buf.h"
#include "sys/seccomp.h"

#define FILTER_CACHE_SLOTS 64

struct filter_cache_header {
        char magic[8]; /* FILTER_CACHE_MAGIC */
        uint32_t key_size;
        uint32_t length; /* instructions */
        uint32_t notifies;
        uint32_t zero;
};

#define FILTER_CACHE_MAGIC "isleBPF1"

/* All that the program depends on: profile, compiler, kernel. */
void filter_cache_key(const struct seccomp_profile *profile, struct buf *ret);

/* Takes a file apart; -EBADMSG where it is not one, -ENOENT where it was made from
 * something else. Pure; fuzzed by tests/fuzz_filter_cache.c. */
int filter_cache_parse(const void *bytes, size_t size, const struct buf *key,
                       struct seccomp_program *ret);

/* -ENOENT where there is none to use, whatever the reason. */
int filter_cache_load(const char *root, const struct buf *key, struct seccomp_program *ret);
/* Failures do not matter. `root` exists. */
void filter_cache_store(const char *root, const struct buf *key,
                        const struct seccomp_program *program);
