/* Records of the image store that anybody may have written. */
#include <stdint.h>
#include <stdlib.h>

#include "image/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const struct json_shape *const shapes[] = {
                &ref_record_shape,   &image_record_shape,    &layer_record_shape,
                &lease_record_shape, &snapshot_record_shape,
        };
        union {
                struct ref_record ref;
                struct image_record image;
                struct layer_record layer;
                struct lease_record lease;
                struct snapshot_record snapshot;
        } record;
        struct err err;
        for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
                if (json_decode_text(shapes[i], (const char *)data, size, &record, &err) == 0)
                        json_free(shapes[i], &record);
        return 0;
}
