/* A configuration that is valid is written so that it is valid and the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "oci/runtime_spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct oci_spec spec, again;
        struct oci_process process;
        struct oci_resources resources;
        struct err err;

        if (json_decode_text(&oci_process_shape, (const char *)data, size, &process, &err) == 0) {
                oci_process_validate(&process, &err);
                json_free(&oci_process_shape, &process);
        }
        if (json_decode_text(&oci_resources_shape, (const char *)data, size, &resources, &err) ==
            0) {
                oci_resources_validate(&resources, &err);
                json_free(&oci_resources_shape, &resources);
        }
        if (oci_spec_parse((const char *)data, size, &spec, &err) < 0)
                return 0;
        auto_free char *text = json_encode_text(&oci_spec_shape, &spec, true);
        if (oci_spec_parse(text, strlen(text), &again, &err) < 0)
                abort();
        auto_free char *text_again = json_encode_text(&oci_spec_shape, &again, true);
        if (strcmp(text, text_again) != 0)
                abort();
        json_free(&oci_spec_shape, &spec);
        json_free(&oci_spec_shape, &again);
        return 0;
}
