/* What a registry may answer: a manifest, an index or a config. What was accepted
 * holds to the limits and, written, is accepted again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "oci/image_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_descriptor(const struct oci_descriptor *descriptor)
{
        struct digest digest;
        if (descriptor->size_bytes < 0 || digest_parse(descriptor->digest, &digest, NULL) < 0)
                abort();
}

static void try_manifest(const char *text, size_t size)
{
        struct oci_manifest manifest, again;
        struct err err;
        if (oci_manifest_parse(text, size, NULL, &manifest, &err) < 0)
                return;
        if (manifest.layers_length > OCI_LAYERS_MAX)
                abort();
        check_descriptor(&manifest.config);
        for (size_t i = 0; i < manifest.layers_length; i++)
                check_descriptor(&manifest.layers[i]);
        auto_free char *written = json_encode_text(&oci_manifest_shape, &manifest, false);
        if (oci_manifest_parse(written, strlen(written), manifest.media_type, &again, &err) < 0)
                abort();
        oci_manifest_finish(&again);
        oci_manifest_finish(&manifest);
}

static void try_index(const char *text, size_t size)
{
        struct oci_index index;
        struct oci_platform wanted;
        const struct oci_descriptor *entry;
        struct err err;
        if (oci_index_parse(text, size, NULL, &index, &err) < 0)
                return;
        oci_platform_parse("linux/arm64/v8", &wanted, NULL);
        if (oci_index_select(&index, &wanted, &entry, &err) == 0)
                check_descriptor(entry);
        oci_platform_finish(&wanted);
        oci_index_finish(&index);
}

static void try_config(const char *text, size_t size)
{
        struct oci_image_config config, again;
        struct digest chain;
        struct err err;
        if (oci_image_config_parse(text, size, &config, &err) < 0)
                return;
        size_t length = strv_length(config.rootfs.diff_ids);
        if (length > 0 && oci_chain_id(config.rootfs.diff_ids, length, &chain, &err) < 0)
                abort();
        auto_free char *written = json_encode_text(&oci_image_config_shape, &config, false);
        if (oci_image_config_parse(written, strlen(written), &again, &err) < 0)
                abort();
        oci_image_config_finish(&again);
        oci_image_config_finish(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        enum oci_media_kind kind;
        struct err err;
        oci_manifest_kind((const char *)data, size, DOCKER_MEDIA_INDEX, &kind, &err);
        try_manifest((const char *)data, size);
        try_index((const char *)data, size);
        try_config((const char *)data, size);
        return 0;
}
