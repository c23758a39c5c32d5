/* A record of an instance that anybody may have written into the store. What is
 * accepted is written back and is the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "engine/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct instance instance = { 0 }, again = { 0 };
        struct err err;
        if (instance_record_decode((const char *)data, size, &instance, &err) < 0)
                return 0;
        if (strlen(instance.id) != INSTANCE_ID_SIZE - 1 || !instance.name)
                abort();
        auto_free char *text = instance_record_encode(&instance);
        if (instance_record_decode(text, strlen(text), &again, &err) < 0)
                abort();
        auto_free char *text_again = instance_record_encode(&again);
        if (strcmp(text, text_again) != 0)
                abort();
        instance_record_finish(&instance);
        instance_record_finish(&again);
        return 0;
}
