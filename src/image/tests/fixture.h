/* Layers and stores for the tests of this room. */
#pragma once

#include "base/tests/test.h"

#include <stdbool.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "codec/digest.h"
#include "codec/tar.h"
#include "image/image.h"
#include "image/image_store.h"
#include "store/store.h"

/* A tar being written to memory. */
struct layer {
        struct buf bytes;
        struct tar_writer *writer;
};
void layer_begin(struct layer *layer);
/* The mode has the type. `text` may be NULL. */
void layer_add(struct layer *layer, const struct tar_entry *entry, const char *text);
void layer_file(struct layer *layer, const char *path, mode_t mode, const char *text);
void layer_dir(struct layer *layer, const char *path, mode_t mode);
void layer_symlink(struct layer *layer, const char *path, const char *target);
void layer_hard_link(struct layer *layer, const char *path, const char *target);
void layer_end(struct layer *layer);
void layer_free(struct layer *layer);

/* A private directory; removed by fixture_finish. */
struct fixture {
        char root[64];
        struct store *store;
        struct image_store *st; /* open on root "…/isle" */
};
int fixture_begin(void **state); /* cmocka setup; *state is a struct fixture */
int fixture_finish(void **state);
/* As after a crash or a reboot: closes and opens again. */
void fixture_reopen(struct fixture *f, const struct image_settings *settings);
char *fixture_path(struct fixture *f, const char *relative); /* below "…/isle"; heap */
bool fixture_exists(struct fixture *f, const char *relative);
/* Entries of a directory below "…/isle", without "." and "..". */
size_t fixture_count(struct fixture *f, const char *relative);

/* Makes an image of the layers as `docker save` would, and loads it as `name`. */
struct image *fixture_load(struct fixture *f, const char *name, struct layer *const *layers,
                           size_t length, const char *mark);
int fixture_load_bytes(struct fixture *f, const struct buf *archive, struct err *err);
/* The archive alone. `config` NULL: one that fits. */
void fixture_archive(struct buf *archive, const char *name, struct layer *const *layers,
                     size_t length, const char *mark, const char *config);

/* Skips where the privileges that layers need are missing. */
#define NEEDS_ROOT()                                                                               \
        do {                                                                                       \
                if (geteuid() != 0) {                                                              \
                        print_message("needs root: owners, devices and trusted.* xattrs\n");       \
                        skip();                                                                    \
                }                                                                                  \
        } while (0)
