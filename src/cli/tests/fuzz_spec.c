/* Input: a letter that chooses a grammar of the options, then its text. */
#include <json-c/json_object.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/duration.h"
#include "base/str.h"
#include "cli/detach.h"
#include "cli/reference.h"
#include "cli/spec.h"
#include "cli/units.h"
#include "codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse_names(const char *text)
{
        auto_image_name name = { 0 };
        if (image_name_parse(text, &name, NULL) == 0)
                free(image_name_full(&name));
}

static void parse_times(const char *text)
{
        char moment[UNITS_TEXT_SIZE];
        int64_t ns;
        struct detach detach;
        moment_parse(text, 0, moment, NULL);
        duration_parse(text, &ns, NULL);
        detach_parse(text, &detach, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size == 0)
                return 0;
        auto_free char *text = xstrndup((const char *)data + 1, size - 1);
        auto_free char *bind = NULL;
        auto_json value = NULL;
        auto_json first = json_object_new_object();
        auto_json second = json_object_new_object();
        struct err err = { 0 };
        switch (data[0]) {
        case 'm':
                spec_mount(text, &value, &err);
                break;
        case 'v':
                spec_volume(text, &bind, &err);
                break;
        case 'p':
                spec_publish(text, first, second, &err);
                break;
        case 'u':
                spec_ulimit(text, &value, &err);
                break;
        case 'd':
                spec_device(text, &value, &err);
                break;
        case 'r':
                spec_restart(text, &value, &err);
                break;
        case 'n':
                parse_names(text);
                break;
        default:
                parse_times(text);
                break;
        }
        return 0;
}
