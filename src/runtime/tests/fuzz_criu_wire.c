/* What something that is called criu may answer: read or refused, texts ended. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/criu_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct criu_response response;
        struct err err;
        memset(&response, 0xff, sizeof(response));
        if (criu_decode(data, size, &response, &err) < 0)
                return 0;
        if (!memchr(response.message, 0, sizeof(response.message)) ||
            !memchr(response.script, 0, sizeof(response.script)))
                abort();
        return 0;
}
