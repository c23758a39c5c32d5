/* What parses can be written and parses again to the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        auto_json object = NULL;
        struct err err;
        if (json_parse((const char *)data, size, &object, &err) < 0)
                return 0;
        auto_free char *text = json_text(object, size % 2);
        auto_json again = NULL;
        if (json_parse(text, strlen(text), &again, &err) < 0)
                abort();
        auto_free char *text_again = json_text(again, size % 2);
        if (strcmp(text, text_again) != 0)
                abort();
        return 0;
}
