/* Input: a template, run on a fixed object. */
#include <errno.h>
#include <json-c/json_object.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"
#include "cli/template.h"
#include "codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char object_text[] = "{\"ID\":\"abc\",\"N\":3,\"F\":1.5,\"Yes\":true,\"Nil\":null,"
                                  "\"List\":[\"a\",[1,2],{\"k\":0}],"
                                  "\"Map\":{\"k\":\"v\",\"n\":{\"deep\":[]}}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        auto_free char *text = xstrndup((const char *)data, size < 4096 ? size : 4096);
        auto_json object = NULL;
        auto_buf out = { .limit_bytes = 1 << 20 };
        struct template *template = NULL;
        struct err err = { 0 };
        json_parse(object_text, sizeof(object_text) - 1, &object, NULL);
        if (template_parse(text, &template, &err) == 0)
                template_execute(template, object, NULL, &out, &err);
        template_destroy(template);
        return 0;
}
