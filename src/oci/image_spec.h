/* OCI image-spec 1.1 and Docker image manifest schema 2: descriptors, manifests,
 * indexes and configurations, strictly parsed.
 *
 * Both families differ only in media types, so one struct serves both. All of it
 * comes from registries and archives and is hostile: text and counts are
 * bounded, sizes are not negative, digests are well formed, and a config has as
 * many diff_ids as the manifest has layers (oci_image_check). That the bytes
 * match the digest is checked where they are read (image/).
 *
 * Ownership: a parsed struct owns its members; return them with
 * oci_manifest_finish() and so on. Unknown keys are dropped: to store or push,
 * keep the original bytes, never the re-encoded ones.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/compress.h"
#include "codec/digest.h"
#include "codec/json.h"
#include "oci/platform.h"

#define OCI_MANIFEST_SIZE_MAX     ((size_t)4 << 20) /* as registries limit it */
#define OCI_IMAGE_CONFIG_SIZE_MAX ((size_t)8 << 20)
#define OCI_LAYERS_MAX            1024
#define OCI_INDEX_MANIFESTS_MAX   4096
#define OCI_BLOB_SIZE_MAX         ((int64_t)1 << 50) /* an absurd size is refused early */

#define OCI_MEDIA_INDEX         "application/vnd.oci.image.index.v1+json"
#define OCI_MEDIA_MANIFEST      "application/vnd.oci.image.manifest.v1+json"
#define OCI_MEDIA_CONFIG        "application/vnd.oci.image.config.v1+json"
#define OCI_MEDIA_LAYER         "application/vnd.oci.image.layer.v1.tar"
#define OCI_MEDIA_LAYER_GZIP    "application/vnd.oci.image.layer.v1.tar+gzip"
#define OCI_MEDIA_LAYER_ZSTD    "application/vnd.oci.image.layer.v1.tar+zstd"
#define OCI_MEDIA_EMPTY         "application/vnd.oci.empty.v1+json"
#define DOCKER_MEDIA_INDEX      "application/vnd.docker.distribution.manifest.list.v2+json"
#define DOCKER_MEDIA_MANIFEST   "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_MEDIA_CONFIG     "application/vnd.docker.container.image.v1+json"
#define DOCKER_MEDIA_LAYER      "application/vnd.docker.image.rootfs.diff.tar"
#define DOCKER_MEDIA_LAYER_GZIP "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define DOCKER_MEDIA_LAYER_ZSTD "application/vnd.docker.image.rootfs.diff.tar.zstd"

/* Value of the Accept header when a manifest is asked for. */
#define OCI_MANIFEST_ACCEPT                                                                        \
        OCI_MEDIA_INDEX ", " OCI_MEDIA_MANIFEST ", " DOCKER_MEDIA_INDEX ", " DOCKER_MEDIA_MANIFEST

enum oci_media_kind {
        OCI_KIND_UNKNOWN,
        OCI_KIND_INDEX,
        OCI_KIND_MANIFEST,
        OCI_KIND_CONFIG,
        OCI_KIND_LAYER,
        OCI_KIND_MANIFEST_V1, /* schema 1: known, not supported */
};

struct oci_media_type {
        const char *name;
        enum oci_media_kind kind;
        enum compression compression; /* of layers */
        bool docker;
        bool foreign; /* a layer that registries do not hold: "urls" say where it is */
};

/* NULL where unknown. Parameters ("; charset=…") are ignored. */
const struct oci_media_type *oci_media_type_find(const char *name);

struct oci_descriptor {
        char *media_type;
        char *digest; /* valid after parsing: digest_parse() cannot fail */
        int64_t size_bytes;
        char **urls;
        char **annotations; /* map */
        char *data;         /* base64 of the content, when embedded */
        char *artifact_type;
        struct oci_platform *platform; /* of an index's entries */
};

struct oci_manifest {
        int32_t schema_version; /* 2 */
        char *media_type;       /* never NULL after parsing */
        char *artifact_type;
        struct oci_descriptor config;
        struct oci_descriptor *layers; /* lowest first */
        size_t layers_length;
        struct oci_descriptor *subject;
        char **annotations; /* map */
};

struct oci_index {
        int32_t schema_version; /* 2 */
        char *media_type;       /* never NULL after parsing */
        char *artifact_type;
        struct oci_descriptor *manifests;
        size_t manifests_length;
        struct oci_descriptor *subject;
        char **annotations; /* map */
};

struct oci_healthcheck {
        char **test; /* NULL inherit; {"NONE"}; {"CMD", …}; {"CMD-SHELL", command} */
        int64_t interval_ns, timeout_ns, start_period_ns, start_interval_ns;
        int64_t retries;
};

/* "config": what a container of the image runs with unless told otherwise. */
struct oci_execution {
        char *user;
        char **exposed_ports; /* set: "80/tcp" */
        char **env;
        char **entrypoint; /* NULL absent */
        char **cmd;        /* NULL absent */
        char **volumes;    /* set of paths */
        char *working_dir;
        char **labels; /* map */
        char *stop_signal;
        bool args_escaped;
        struct oci_healthcheck *healthcheck; /* docker's */
        char **on_build, **shell;            /* docker's */
        char *hostname, *domainname;         /* docker's, of old images */
        int64_t stop_timeout_s;              /* docker's */
        bool has_stop_timeout_s;
};

struct oci_rootfs {
        char *type;      /* "layers" */
        char **diff_ids; /* digests of the uncompressed layers, lowest first */
};

struct oci_history {
        char *created; /* RFC 3339 */
        char *created_by;
        char *author;
        char *comment;
        bool empty_layer;
};

struct oci_image_config {
        char *created; /* RFC 3339 or NULL */
        char *author;
        char *architecture;
        char *os;
        char *os_version;
        char **os_features;
        char *variant;
        struct oci_execution config;
        struct oci_rootfs rootfs;
        struct oci_history *history;
        size_t history_length;
        char *comment;        /* docker's */
        char *container;      /* docker's */
        char *docker_version; /* docker's */
};

extern const struct json_shape oci_descriptor_shape;
extern const struct json_shape oci_manifest_shape;
extern const struct json_shape oci_index_shape;
extern const struct json_shape oci_execution_shape; /* docker's API uses the same names */
extern const struct json_shape oci_healthcheck_shape;
extern const struct json_shape oci_history_shape;
extern const struct json_shape oci_image_config_shape;

/* Tells what a manifest text is: OCI_KIND_INDEX, OCI_KIND_MANIFEST, or an error that says why it
 * is neither. `media_type` is what came with it (Content-Type or descriptor) or NULL; it and the
 * text must not contradict each other. */
int oci_manifest_kind(const char *text, size_t size, const char *media_type,
                      enum oci_media_kind *ret, struct err *err);

int oci_manifest_parse(const char *text, size_t size, const char *media_type,
                       struct oci_manifest *ret, struct err *err);
int oci_index_parse(const char *text, size_t size, const char *media_type, struct oci_index *ret,
                    struct err *err);
int oci_image_config_parse(const char *text, size_t size, struct oci_image_config *ret,
                           struct err *err);

void oci_manifest_finish(struct oci_manifest *manifest);
void oci_index_finish(struct oci_index *index);
void oci_image_config_finish(struct oci_image_config *config);

/* That a manifest and its config belong together: a diff_id for every layer, layers of known
 * media types. */
int oci_image_check(const struct oci_manifest *manifest, const struct oci_image_config *config,
                    struct err *err);

/* The entry that serves a platform best (the first of equals); attestations and other artifacts
 * are passed over. -ENOENT with a story that lists what there is. */
int oci_index_select(const struct oci_index *index, const struct oci_platform *wanted,
                     const struct oci_descriptor **ret, struct err *err);

/* ChainID of the lowest `length` layers (image-spec config.md): identifies a stack of layers. */
int oci_chain_id(char *const *diff_ids, size_t length, struct digest *ret, struct err *err);
