/* The tables of image-spec and of Docker's schema 2. */
#include "oci/image_spec.h"

#include "base/str.h"

#define KIND_LAYER(name_, compression_, docker_, foreign_)                                         \
        {                                                                                          \
                .name = (name_), .kind = OCI_KIND_LAYER, .compression = (compression_),            \
                .docker = (docker_), .foreign = (foreign_)                                         \
        }

static const struct oci_media_type media_types[] = {
        { .name = OCI_MEDIA_INDEX, .kind = OCI_KIND_INDEX },
        { .name = OCI_MEDIA_MANIFEST, .kind = OCI_KIND_MANIFEST },
        { .name = OCI_MEDIA_CONFIG, .kind = OCI_KIND_CONFIG },
        { .name = DOCKER_MEDIA_INDEX, .kind = OCI_KIND_INDEX, .docker = true },
        { .name = DOCKER_MEDIA_MANIFEST, .kind = OCI_KIND_MANIFEST, .docker = true },
        { .name = DOCKER_MEDIA_CONFIG, .kind = OCI_KIND_CONFIG, .docker = true },
        { .name = "application/vnd.docker.distribution.manifest.v1+json",
          .kind = OCI_KIND_MANIFEST_V1,
          .docker = true },
        { .name = "application/vnd.docker.distribution.manifest.v1+prettyjws",
          .kind = OCI_KIND_MANIFEST_V1,
          .docker = true },
        KIND_LAYER(OCI_MEDIA_LAYER, COMPRESSION_NONE, false, false),
        KIND_LAYER(OCI_MEDIA_LAYER_GZIP, COMPRESSION_GZIP, false, false),
        KIND_LAYER(OCI_MEDIA_LAYER_ZSTD, COMPRESSION_ZSTD, false, false),
        KIND_LAYER(DOCKER_MEDIA_LAYER, COMPRESSION_NONE, true, false),
        KIND_LAYER(DOCKER_MEDIA_LAYER_GZIP, COMPRESSION_GZIP, true, false),
        KIND_LAYER(DOCKER_MEDIA_LAYER_ZSTD, COMPRESSION_ZSTD, true, false),
        KIND_LAYER("application/vnd.oci.image.layer.nondistributable.v1.tar", COMPRESSION_NONE,
                   false, true),
        KIND_LAYER("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", COMPRESSION_GZIP,
                   false, true),
        KIND_LAYER("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", COMPRESSION_ZSTD,
                   false, true),
        KIND_LAYER("application/vnd.docker.image.rootfs.foreign.diff.tar", COMPRESSION_NONE, true,
                   true),
        KIND_LAYER("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", COMPRESSION_GZIP,
                   true, true),
};

const struct oci_media_type *oci_media_type_find(const char *name)
{
        size_t length = name ? strcspn(name, "; ") : 0;
        for (size_t i = 0; i < ELEMENTS(media_types); i++)
                if (strlen(media_types[i].name) == length &&
                    strncasecmp(media_types[i].name, name, length) == 0)
                        return &media_types[i];
        return NULL;
}

static const struct json_field descriptor_fields[] = {
        JSON_FIELD(struct oci_descriptor, "mediaType", JSON_STRING, media_type, JSON_REQUIRED),
        JSON_FIELD(struct oci_descriptor, "digest", JSON_STRING, digest, JSON_REQUIRED),
        JSON_FIELD(struct oci_descriptor, "size", JSON_INT, size_bytes, JSON_REQUIRED),
        JSON_FIELD(struct oci_descriptor, "urls", JSON_STRV, urls, 0),
        JSON_FIELD(struct oci_descriptor, "annotations", JSON_MAP, annotations, 0),
        JSON_FIELD(struct oci_descriptor, "data", JSON_STRING, data, 0),
        JSON_FIELD_POINTER(struct oci_descriptor, "platform", platform, &oci_platform_shape, 0),
        JSON_FIELD(struct oci_descriptor, "artifactType", JSON_STRING, artifact_type, 0),
};
const struct json_shape oci_descriptor_shape = JSON_SHAPE("descriptor", struct oci_descriptor,
                                                          descriptor_fields);

static const struct json_field manifest_fields[] = {
        JSON_FIELD(struct oci_manifest, "schemaVersion", JSON_INT, schema_version, JSON_REQUIRED),
        JSON_FIELD(struct oci_manifest, "mediaType", JSON_STRING, media_type, 0),
        JSON_FIELD(struct oci_manifest, "artifactType", JSON_STRING, artifact_type, 0),
        JSON_FIELD_STRUCT(struct oci_manifest, "config", config, &oci_descriptor_shape,
                          JSON_REQUIRED),
        JSON_FIELD_ARRAY(struct oci_manifest, "layers", layers, layers_length,
                         &oci_descriptor_shape, JSON_REQUIRED),
        JSON_FIELD_POINTER(struct oci_manifest, "subject", subject, &oci_descriptor_shape, 0),
        JSON_FIELD(struct oci_manifest, "annotations", JSON_MAP, annotations, 0),
};
const struct json_shape oci_manifest_shape = JSON_SHAPE("manifest", struct oci_manifest,
                                                        manifest_fields);

static const struct json_field index_fields[] = {
        JSON_FIELD(struct oci_index, "schemaVersion", JSON_INT, schema_version, JSON_REQUIRED),
        JSON_FIELD(struct oci_index, "mediaType", JSON_STRING, media_type, 0),
        JSON_FIELD(struct oci_index, "artifactType", JSON_STRING, artifact_type, 0),
        JSON_FIELD_ARRAY(struct oci_index, "manifests", manifests, manifests_length,
                         &oci_descriptor_shape, JSON_REQUIRED),
        JSON_FIELD_POINTER(struct oci_index, "subject", subject, &oci_descriptor_shape, 0),
        JSON_FIELD(struct oci_index, "annotations", JSON_MAP, annotations, 0),
};
const struct json_shape oci_index_shape = JSON_SHAPE("index", struct oci_index, index_fields);

static const struct json_field healthcheck_fields[] = {
        JSON_FIELD(struct oci_healthcheck, "Test", JSON_STRV, test, 0),
        JSON_FIELD(struct oci_healthcheck, "Interval", JSON_INT, interval_ns, 0),
        JSON_FIELD(struct oci_healthcheck, "Timeout", JSON_INT, timeout_ns, 0),
        JSON_FIELD(struct oci_healthcheck, "StartPeriod", JSON_INT, start_period_ns, 0),
        JSON_FIELD(struct oci_healthcheck, "StartInterval", JSON_INT, start_interval_ns, 0),
        JSON_FIELD(struct oci_healthcheck, "Retries", JSON_INT, retries, 0),
};
const struct json_shape oci_healthcheck_shape = JSON_SHAPE("Healthcheck", struct oci_healthcheck,
                                                           healthcheck_fields);

static const struct json_field execution_fields[] = {
        JSON_FIELD(struct oci_execution, "Hostname", JSON_STRING, hostname, 0),
        JSON_FIELD(struct oci_execution, "Domainname", JSON_STRING, domainname, 0),
        JSON_FIELD(struct oci_execution, "User", JSON_STRING, user, 0),
        JSON_FIELD(struct oci_execution, "ExposedPorts", JSON_SET, exposed_ports, 0),
        JSON_FIELD(struct oci_execution, "Env", JSON_STRV, env, 0),
        JSON_FIELD(struct oci_execution, "Entrypoint", JSON_STRV, entrypoint, JSON_OR_STRING),
        JSON_FIELD(struct oci_execution, "Cmd", JSON_STRV, cmd, JSON_OR_STRING),
        JSON_FIELD_POINTER(struct oci_execution, "Healthcheck", healthcheck, &oci_healthcheck_shape,
                           0),
        JSON_FIELD(struct oci_execution, "ArgsEscaped", JSON_BOOL, args_escaped, 0),
        JSON_FIELD(struct oci_execution, "Volumes", JSON_SET, volumes, 0),
        JSON_FIELD(struct oci_execution, "WorkingDir", JSON_STRING, working_dir, 0),
        JSON_FIELD(struct oci_execution, "OnBuild", JSON_STRV, on_build, 0),
        JSON_FIELD(struct oci_execution, "Labels", JSON_MAP, labels, 0),
        JSON_FIELD(struct oci_execution, "StopSignal", JSON_STRING, stop_signal, 0),
        JSON_FIELD_OPT(struct oci_execution, "StopTimeout", JSON_INT, stop_timeout_s,
                       has_stop_timeout_s),
        JSON_FIELD(struct oci_execution, "Shell", JSON_STRV, shell, 0),
};
const struct json_shape oci_execution_shape = JSON_SHAPE("config", struct oci_execution,
                                                         execution_fields);

static const struct json_field rootfs_fields[] = {
        JSON_FIELD(struct oci_rootfs, "type", JSON_STRING, type, JSON_REQUIRED),
        JSON_FIELD(struct oci_rootfs, "diff_ids", JSON_STRV, diff_ids, JSON_KEEP_EMPTY),
};
static const struct json_shape rootfs_shape = JSON_SHAPE("rootfs", struct oci_rootfs,
                                                         rootfs_fields);

static const struct json_field history_fields[] = {
        JSON_FIELD(struct oci_history, "created", JSON_STRING, created, 0),
        JSON_FIELD(struct oci_history, "created_by", JSON_STRING, created_by, 0),
        JSON_FIELD(struct oci_history, "author", JSON_STRING, author, 0),
        JSON_FIELD(struct oci_history, "comment", JSON_STRING, comment, 0),
        JSON_FIELD(struct oci_history, "empty_layer", JSON_BOOL, empty_layer, 0),
};
const struct json_shape oci_history_shape = JSON_SHAPE("history", struct oci_history,
                                                       history_fields);

static const struct json_field image_config_fields[] = {
        JSON_FIELD(struct oci_image_config, "created", JSON_STRING, created, 0),
        JSON_FIELD(struct oci_image_config, "author", JSON_STRING, author, 0),
        JSON_FIELD(struct oci_image_config, "architecture", JSON_STRING, architecture,
                   JSON_KEEP_EMPTY),
        JSON_FIELD(struct oci_image_config, "os", JSON_STRING, os, JSON_KEEP_EMPTY),
        JSON_FIELD(struct oci_image_config, "os.version", JSON_STRING, os_version, 0),
        JSON_FIELD(struct oci_image_config, "os.features", JSON_STRV, os_features, 0),
        JSON_FIELD(struct oci_image_config, "variant", JSON_STRING, variant, 0),
        JSON_FIELD_STRUCT(struct oci_image_config, "config", config, &oci_execution_shape,
                          JSON_KEEP_EMPTY),
        JSON_FIELD_STRUCT(struct oci_image_config, "rootfs", rootfs, &rootfs_shape, JSON_REQUIRED),
        JSON_FIELD_ARRAY(struct oci_image_config, "history", history, history_length,
                         &oci_history_shape, 0),
        JSON_FIELD(struct oci_image_config, "comment", JSON_STRING, comment, 0),
        JSON_FIELD(struct oci_image_config, "container", JSON_STRING, container, 0),
        JSON_FIELD(struct oci_image_config, "docker_version", JSON_STRING, docker_version, 0),
};
const struct json_shape oci_image_config_shape = JSON_SHAPE("image config", struct oci_image_config,
                                                            image_config_fields);
