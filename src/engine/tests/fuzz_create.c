/* The body of POST /containers/create: decoded, checked, its mounts planned. */
#include <stdint.h>
#include <stdlib.h>

#include "base/str.h"
#include "engine/mounts.h"
#include "engine/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct instance_spec spec;
        struct mount_plan plan;
        struct err err = { 0 };
        if (spec_decode_create((const char *)data, size, &spec, &err) < 0)
                return 0;
        auto_strv warnings = NULL;
        if (spec_check(&spec, &warnings, &err) < 0) {
                if (!*err_text(&err))
                        abort(); /* refused without a word */
        } else if (mount_plan_make(&spec, spec.config.volumes, NULL, 0, "/volumes", &plan, &err) ==
                   0) {
                for (size_t i = 0; i < plan.mounts_length; i++)
                        if (plan.mounts[i].destination[0] != '/')
                                abort();
                mount_plan_finish(&plan);
        }
        spec_finish(&spec);
        return 0;
}
