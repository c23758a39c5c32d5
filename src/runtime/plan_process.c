#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/plan.h"

static const struct {
        const char *name;
        int resource;
} rlimit_names[] = {
        { "RLIMIT_AS", RLIMIT_AS },
        { "RLIMIT_CORE", RLIMIT_CORE },
        { "RLIMIT_CPU", RLIMIT_CPU },
        { "RLIMIT_DATA", RLIMIT_DATA },
        { "RLIMIT_FSIZE", RLIMIT_FSIZE },
        { "RLIMIT_LOCKS", RLIMIT_LOCKS },
        { "RLIMIT_MEMLOCK", RLIMIT_MEMLOCK },
        { "RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE },
        { "RLIMIT_NICE", RLIMIT_NICE },
        { "RLIMIT_NOFILE", RLIMIT_NOFILE },
        { "RLIMIT_NPROC", RLIMIT_NPROC },
        { "RLIMIT_RSS", RLIMIT_RSS },
        { "RLIMIT_RTPRIO", RLIMIT_RTPRIO },
        { "RLIMIT_RTTIME", RLIMIT_RTTIME },
        { "RLIMIT_SIGPENDING", RLIMIT_SIGPENDING },
        { "RLIMIT_STACK", RLIMIT_STACK },
};

static int parse_rlimits(const struct oci_process *oci, struct plan_process *to, struct err *err)
{
        to->rlimits = xcalloc(oci->rlimits_length + 1, sizeof(*to->rlimits));
        for (size_t i = 0; i < oci->rlimits_length; i++) {
                const struct oci_rlimit *from = &oci->rlimits[i];
                int resource = -1;
                for (size_t n = 0; n < ELEMENTS(rlimit_names); n++)
                        if (streq(rlimit_names[n].name, from->type))
                                resource = rlimit_names[n].resource;
                if (resource < 0)
                        return err_plain(err, EINVAL, "invalid rlimit type: %s", from->type);
                to->rlimits[to->rlimits_length++] = (struct plan_rlimit){ resource, from->soft,
                                                                          from->hard };
        }
        return 0;
}

/* The specification: what cannot be mapped to the kernel is a warning. */
static void unknown_capability(void *arg, const char *name)
{
        char ***told = arg;
        if (strv_contains(*told, name))
                return;
        strv_push(told, name);
        log_warning("unknown capability '%s' is ignored", name);
}

static void parse_caps(const struct oci_capabilities *from, struct caps_sets *to)
{
        auto_strv told = NULL;
        if (!from)
                return;
        to->bounding = caps_mask(from->bounding, unknown_capability, &told);
        to->effective = caps_mask(from->effective, unknown_capability, &told);
        to->permitted = caps_mask(from->permitted, unknown_capability, &told);
        to->inheritable = caps_mask(from->inheritable, unknown_capability, &told);
        /* An ambient one must be permitted and inheritable; runc and crun raise
         * only what can be, and warn about the rest. */
        to->ambient = caps_mask(from->ambient, unknown_capability, &told) & to->permitted &
                      to->inheritable;
}

int plan_process_create(const struct oci_process *oci, struct plan_process *ret, struct err *err)
{
        struct plan_process process = { .oci = oci };
        parse_caps(oci->capabilities, &process.caps);
        int r = parse_rlimits(oci, &process, err);
        if (r < 0) {
                plan_process_finish(&process);
                return r;
        }
        *ret = process;
        return 0;
}

void plan_process_finish(struct plan_process *process)
{
        free(process->rlimits);
        *process = (struct plan_process){ 0 };
}
