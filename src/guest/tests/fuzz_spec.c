/* Whatever config.json says, the two specs that are made of it are valid ones, or it is
 * refused with a word. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "guest/guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(const char *config)
{
        struct oci_spec spec;
        auto_free char *text = NULL;
        struct err err = { 0 };
        if (guest_make_inside(config, false, &text, &err) < 0) {
                if (!*err_text(&err))
                        abort();
                return;
        }
        if (oci_spec_parse(text, strlen(text), &spec, &err) < 0)
                abort();
        json_free(&oci_spec_shape, &spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct guest_parts parts = { "/boot/k", "/cache/i", "/bin/vmm", "/bin/runtime" };
        struct oci_spec spec;
        struct err err = { 0 };
        auto_free char *config = xstrndup((const char *)data, size);
        if (oci_spec_parse(config, strlen(config), &spec, &err) < 0)
                return 0;
        check_inside(config);
        if (guest_make_jail(&spec, &parts, "/run/state", 5, &err) == 0) {
                if (oci_spec_validate(&spec, &err) < 0)
                        abort();
        } else if (!*err_text(&err)) {
                abort();
        }
        json_free(&oci_spec_shape, &spec);
        return 0;
}
