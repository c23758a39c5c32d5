/* A state.json that anybody may have written: taken apart or refused. */
#include <stdint.h>
#include <stdlib.h>

#include "runtime/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        for (int with_config = 0; with_config < 2; with_config++) {
                struct record record;
                struct err err;
                if (record_parse((const char *)data, size, with_config, &record, &err) < 0)
                        continue;
                if (!record.id || (with_config && !record.config))
                        abort();
                record_finish(&record);
        }
        return 0;
}
