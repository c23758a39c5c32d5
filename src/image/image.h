/* Images: what is pulled, kept, listed, tagged, moved and removed.
 *
 * An image store is a directory and a set of records in the state store:
 *
 *     ROOT/content/blobs/sha256/<hex>   blobs as the registry has them      image/content.h
 *     ROOT/content/ingest/<hex>         partial blobs, resumed by the next pull
 *     ROOT/layers/<chain id hex>/fs     one unpacked layer, shared          image/layer.h
 *     ROOT/l/<short>                    symlink to it (overlay option limit)
 *     ROOT/staging/                     being unpacked; emptied at open
 *     ROOT/snapshots/<instance id>/     upper, work                         image/snapshot.h
 *
 *     image/ref/<canonical reference>   tag or digest reference -> image id
 *     image/record/<image id hex>       struct image_record                 image/record.h
 *     image/layer/<chain id hex>        struct layer_record
 *     image/lease/<id>                  what a pull in progress needs
 *     image/snapshot/<instance id>      what an instance stands on
 *
 * The image id is the digest of the image's configuration, as docker's. A blob
 * or layer is either whole or invisible: it is built elsewhere, verified, and
 * renamed. Writes are not waited for: a background thread syncs the file system
 * and then marks records durable; at open after a power loss, what was not
 * durable is verified, and dropped where it is bad.
 *
 * Threads: every function may be called from any thread at the same time and
 * blocks (on the network, the disk, another pull of the same layer); none may be
 * called from an event loop. `struct image` objects are immutable and reference
 * counted (atomic).
 *
 * Garbage: image_remove, image_prune and image_gc delete the blobs and layers
 * that no record, lease or snapshot needs. A lease outlives a failed or killed
 * pull by `image_settings.lease_ttl_ns`, so that the next one resumes.
 *
 * Progress is reported by callbacks, which are never called concurrently for one
 * operation, though from different threads.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "codec/digest.h"
#include "oci/image_spec.h"
#include "oci/platform.h"

struct store;
struct image_store;

/* What an unpacked layer may cost. A layer beyond it is refused (-EFBIG). */
struct layer_limits {
        uint64_t size_bytes;   /* unpacked stream; 0: 64 GiB */
        uint64_t entries;      /* 0: 4 M */
        uint32_t ratio;        /* unpacked / packed beyond the first GiB; 0: 2000 */
        uint64_t memory_bytes; /* for directory names and the like; 0: 128 MiB */
};

/* Everything is copied. Zero is a sensible default for every member. */
struct image_settings {
        char *const *insecure_registries; /* "host", "host:port" or CIDR. Loopback always is one */
        const char *registry_ca_file;     /* PEM, beside the system's; NULL for none */
        const char *certificates_dir;     /* DIR/host[:port]/ca.crt; NULL: /etc/docker/certs.d */
        struct layer_limits limits;
        unsigned parallel_layers;    /* 0: 3, as docker */
        unsigned attempts;           /* of one request; 0: 5 */
        int64_t retry_delay_ns;      /* the first, then doubled up to 10 s; 0: 500 ms */
        int64_t lease_ttl_ns;        /* 0: 24 h */
        bool no_durability_thread;   /* tests: nothing is synced in the background */
        const char *default_os_arch; /* "linux/arm64"; NULL: this machine */
        /* What a person should know though nothing failed (an image lost to a power
         * failure). May be NULL. Called from any thread. */
        void (*notice)(void *arg, const char *text);
        void *notice_arg;
};

/* Opens or creates. The store stays the caller's and must outlive this.
 * -EBUSY where another process has it open. */
int image_store_open(const char *root, struct store *store, const struct image_settings *settings,
                     struct image_store **ret, struct err *err);
void image_store_close(struct image_store *st);

struct image {
        atomic_uint references;
        struct digest id;                  /* of the configuration */
        struct digest manifest;            /* of the manifest it was pulled by or made with */
        char **repo_tags;                  /* familiar: "busybox:latest" */
        char **repo_digests;               /* familiar: "busybox@sha256:…" */
        char **references_canonical;       /* both, canonical: "docker.io/library/busybox:latest" */
        struct oci_image_config spec;      /* the decoded configuration */
        char *spec_text;                   /* and its text */
        int64_t created_ns;                /* 0: unknown */
        int64_t pulled_ns;                 /* when it came into this store */
        uint64_t size_bytes;               /* unpacked, all layers */
        char *architecture, *os, *variant; /* "" when unknown */
        struct digest *chain_ids;          /* bottom first */
        uint64_t *layer_sizes_bytes;       /* unpacked, same order */
        size_t layers_length;
};

struct image *image_ref(struct image *image);
void image_unref(struct image *image); /* NULL ok */
DEFINE_CLEANUP(auto_image_cleanup, struct image *, image_unref)
#define auto_image CLEANUP(auto_image_cleanup) struct image *

/* The 12 hex digits people see. */
#define IMAGE_SHORT_SIZE 13
void image_short_id(const struct digest *id, char text[IMAGE_SHORT_SIZE]);

/* ---- progress ---------------------------------------------------------- */

/* One line of docker's JSON progress stream. With `total` it is a bar. */
struct image_event {
        const char *id;     /* "" or short layer id or tag */
        const char *status; /* docker's words: "Downloading", "Pull complete", "Digest: sha256:…" */
        uint64_t current, total; /* bytes; total 0: no bar, or unknown where current is set */
};

struct image_progress {
        void (*report)(void *arg, const struct image_event *event); /* NULL: nobody watches */
        void *arg;
};

/* ---- registries -------------------------------------------------------- */

/* As the X-Registry-Auth header has it; any member may be NULL. */
struct registry_auth {
        char *username, *password;
        char *identity_token; /* OAuth2 refresh token */
        char *registry_token; /* bearer token used as it is */
        char *server;
};

struct image_transfer {
        const char *platform;             /* "linux/arm64/v8"; NULL: the store's default */
        const struct registry_auth *auth; /* NULL: anonymous */
        struct image_progress progress;
        const atomic_bool *cancel; /* NULL: cannot be cancelled. -ECANCELED */
};

/* Pulls `reference` ("busybox", "localhost:5000/a/b:tag", "x@sha256:…"); where the
 * image is already here and the registry's answer is the same, only says so.
 * -ENOENT not in the registry, -EACCES not allowed, -ECANCELED, -EBADMSG what
 * came is not what was announced. ret may be NULL. */
int image_pull(struct image_store *st, const char *reference, const struct image_transfer *how,
               struct image **ret, struct err *err);

/* Pushes the image that `reference` names. Events end with docker's
 * "latest: digest: sha256:… size: 123" line; *ret_digest (may be NULL) is it. */
int image_push(struct image_store *st, const char *reference, const struct image_transfer *how,
               struct digest *ret_digest, struct err *err);

/* Whether the credentials are good. `server` NULL or "" is Docker Hub.
 * -EACCES: they are not. */
int image_login(struct image_store *st, const struct registry_auth *auth, struct err *err);

/* ---- names ------------------------------------------------------------- */

int image_tag(struct image_store *st, const char *name_or_id, const char *new_reference,
              struct err *err);

/* By name, digest, id or unambiguous id prefix. -ENOENT "No such image: x";
 * -EINVAL where the prefix is ambiguous or the name is not one. */
int image_resolve(struct image_store *st, const char *name_or_id, struct image **ret,
                  struct err *err);

struct image_filter {
        char **references;  /* patterns as "busybox", "*\/alpine:3.*"; any matches */
        char **labels;      /* "key" or "key=value"; all match */
        const char *before; /* created before this image */
        const char *since;  /* created after this image */
        int64_t until_ns;   /* created before this time; 0: no filter */
        int dangling;       /* -1: both, 0: tagged only, 1: untagged only */
};

/* Newest first. *ret is an array of references; image_list_free returns it. A
 * NULL filter lists all. */
int image_list(struct image_store *st, const struct image_filter *filter, struct image ***ret,
               size_t *ret_length, struct err *err);
void image_list_free(struct image **list, size_t length);

/* ---- removal ----------------------------------------------------------- */

/* An instance made from an image; the engine lists them. */
struct image_use {
        const char *image_id; /* digest text */
        const char *instance_id;
        bool running;
};

struct image_removed {
        bool untagged; /* true: Untagged, `name` is a familiar reference; false: Deleted, a digest
                        */
        char *name;
};

struct image_removal {
        struct image_removed *items;
        size_t length;
        uint64_t reclaimed_bytes;
};
void image_removal_finish(struct image_removal *removal);

/* docker rmi. -EBUSY is docker's "conflict: …", with the reason and the way out.
 * `removal` is zeroed by the caller, filled even where a later step fails. */
int image_remove(struct image_store *st, const char *name_or_id, bool force,
                 const struct image_use *uses, size_t uses_length, struct image_removal *removal,
                 struct err *err);

/* docker image prune [-a]. Images in use stay. What interrupted pulls left for
 * the next one goes too. */
int image_prune(struct image_store *st, bool dangling_only, const struct image_filter *filter,
                const struct image_use *uses, size_t uses_length, struct image_removal *removal,
                struct err *err);

/* ---- looking inside ---------------------------------------------------- */

struct image_history_entry {
        char *id; /* image id text, or "<missing>" */
        int64_t created_ns;
        char *created_by, *comment;
        char **tags;
        uint64_t size_bytes;
};

/* Newest first. */
int image_history(struct image_store *st, const char *name_or_id, struct image_history_entry **ret,
                  size_t *ret_length, struct err *err);
void image_history_free(struct image_history_entry *entries, size_t length);

/* One blob or layer looked at by image_verify. */
struct image_check {
        const char *kind;  /* "manifest", "config", "layer blob", "layer" */
        const char *image; /* short id */
        const char *digest;
        bool good;
        const char *problem; /* "" when good */
};

/* Recomputes the digests of one image's blobs, or of all images' with
 * name_or_id NULL, and looks whether the unpacked layers are there. Returns the
 * number of bad ones. */
int image_verify(struct image_store *st, const char *name_or_id,
                 void (*report)(void *arg, const struct image_check *check), void *arg,
                 struct err *err);

struct image_disk_usage {
        uint64_t layers_bytes;      /* unpacked layers, each counted once */
        uint64_t blobs_bytes;       /* packed content */
        uint64_t reclaimable_bytes; /* of images without a use */
        size_t images_length, active_length;
};
int image_usage(struct image_store *st, const struct image_use *uses, size_t uses_length,
                struct image_disk_usage *ret, struct err *err);
/* Bytes of an image's layers that other images have too. */
int image_shared_size(struct image_store *st, const struct image *image, uint64_t *ret_bytes,
                      struct err *err);

struct image_gc_result {
        size_t blobs, layers, partials;
        uint64_t bytes;
};
/* ret may be NULL. */
int image_gc(struct image_store *st, struct image_gc_result *ret, struct err *err);

/* ---- archives ---------------------------------------------------------- */

/* docker save: one tar that is a docker-archive (manifest.json, repositories)
 * and an OCI layout (index.json, oci-layout, blobs/). Not seekable fds will do. */
int image_save(struct image_store *st, char *const *names, size_t length, int out_fd,
               struct err *err);

/* docker load: docker-archive or OCI layout, whole tar plain, gzip or zstd.
 * `loaded` is called with "Loaded image: busybox:latest" or "Loaded image ID: …". */
int image_load(struct image_store *st, int in_fd, const struct image_transfer *how,
               void (*loaded)(void *arg, const char *line), void *arg, struct err *err);

struct image_import {
        const char *reference; /* NULL: untagged */
        char *const *changes;  /* "CMD [\"sh\"]", "ENV a=b", … */
        const char *message;   /* history comment; NULL: docker's default */
        const char *platform;  /* NULL: the store's default */
        const atomic_bool *cancel;
};

/* docker import: a tar (plain, gzip, zstd) becomes an image of one layer. */
int image_import(struct image_store *st, int in_fd, const struct image_import *how,
                 struct image **ret, struct err *err);
