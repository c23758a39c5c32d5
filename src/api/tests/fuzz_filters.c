/* The `filters` argument: parser and matchers on any text. */
#include <stdint.h>
#include <stdlib.h>

#include "api/filters.h"
#include "base/auto.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        auto_free char *text = xstrndup((const char *)data, size);
        auto_filters filters = { 0 };
        struct err err = { 0 };
        if (filters_parse(text, &filters, &err) < 0)
                return 0;
        static const char *const keys[] = { "name", "label", "id", NULL };
        char *labels[] = { (char *)"a=b", (char *)"c=", NULL };
        bool flag = false;
        filters_check(&filters, keys, &err);
        for (size_t i = 0; i < filters.length; i++) {
                const char *key = filters.items[i].key;
                filters_match(&filters, key, "web");
                filters_match_pattern(&filters, key, "web");
                filters_match_labels(&filters, key, labels);
                filters_bool(&filters, key, &flag, &err);
        }
        return 0;
}
