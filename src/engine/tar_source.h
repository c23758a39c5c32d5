/* Bytes of a descriptor, decompressed where they are gzip or zstd, for a tar reader. */
#pragma once

#include "base/auto.h"
#include "codec/tar.h"

struct tar_source;

/* `fd` is borrowed. */
int tar_source_create(int fd, struct tar_source **ret, struct err *err);
/* A tar_read of codec/tar.h; `arg` is the source. */
ssize_t tar_source_read(void *arg, const void **ret_block, struct err *err);
void tar_source_destroy(struct tar_source *source);

DEFINE_CLEANUP(auto_tar_source_cleanup, struct tar_source *, tar_source_destroy)
#define auto_tar_source CLEANUP(auto_tar_source_cleanup) struct tar_source *
