/* Whatever config.json says, a plan is made or refused: nothing is touched. */
#include <stdint.h>
#include <stdlib.h>

#include "base/auto.h"
#include "runtime/filter.h"
#include "runtime/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct oci_spec spec;
        struct plan plan;
        struct err err;
        if (oci_spec_parse((const char *)data, size, &spec, &err) < 0)
                return 0;
        if (plan_create(&spec, "/bundle", "fuzz", &plan, &err) == 0) {
                if (!plan.rootfs || plan.rootfs[0] != '/')
                        abort();
                plan_finish(&plan);
        } else if (!*err_text(&err)) {
                abort(); /* refused without a word */
        }
        json_free(&oci_spec_shape, &spec);
        return 0;
}
