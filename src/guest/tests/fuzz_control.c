/* Whatever the machine's control socket answers is a balloon, or is refused with a word. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "guest/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct err err = { 0 };
        struct control_balloon balloon;
        const char *body = NULL;
        auto_free char *text = xcalloc(size + 1, 1); /* NULs and all */
        if (size)
                memcpy(text, data, size);
        if (control_parse_balloon(text, size, &balloon, &err) < 0 && !*err_text(&err))
                abort();
        if (size) /* it was cut up */
                memcpy(text, data, size);
        err = (struct err){ 0 };
        int r = control_parse_answer(text, size, &body, &err);
        if (r < 0 ? !*err_text(&err) : body < text || body > text + size)
                abort();
        return 0;
}
