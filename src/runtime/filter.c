#include "runtime/filter.h"

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"
#include "runtime/filter_cache.h"

#define FAIL_UNKNOWN "run.oci.seccomp_fail_unknown_syscall"
#define RECEIVER     "run.oci.seccomp.receiver"
#define RECEIVER_ENV "RUN_OCI_SECCOMP_RECEIVER"

static const enum seccomp_action actions[] = {
        [OCI_SECCOMP_UNSET] = SECCOMP_ACTION_ALLOW,
        [OCI_SECCOMP_KILL] = SECCOMP_ACTION_KILL_THREAD,
        [OCI_SECCOMP_KILL_PROCESS] = SECCOMP_ACTION_KILL_PROCESS,
        [OCI_SECCOMP_KILL_THREAD] = SECCOMP_ACTION_KILL_THREAD,
        [OCI_SECCOMP_TRAP] = SECCOMP_ACTION_TRAP,
        [OCI_SECCOMP_ERRNO] = SECCOMP_ACTION_ERRNO,
        [OCI_SECCOMP_TRACE] = SECCOMP_ACTION_TRACE,
        [OCI_SECCOMP_ALLOW] = SECCOMP_ACTION_ALLOW,
        [OCI_SECCOMP_LOG] = SECCOMP_ACTION_LOG,
        [OCI_SECCOMP_NOTIFY] = SECCOMP_ACTION_NOTIFY,
};

static const enum seccomp_compare compares[] = {
        [OCI_SECCOMP_OP_UNSET] = SECCOMP_COMPARE_EQ,
        [OCI_SECCOMP_OP_NE] = SECCOMP_COMPARE_NE,
        [OCI_SECCOMP_OP_LT] = SECCOMP_COMPARE_LT,
        [OCI_SECCOMP_OP_LE] = SECCOMP_COMPARE_LE,
        [OCI_SECCOMP_OP_EQ] = SECCOMP_COMPARE_EQ,
        [OCI_SECCOMP_OP_GE] = SECCOMP_COMPARE_GE,
        [OCI_SECCOMP_OP_GT] = SECCOMP_COMPARE_GT,
        [OCI_SECCOMP_OP_MASKED_EQ] = SECCOMP_COMPARE_MASKED_EQ,
};

/* Who is sent the descriptor: the profile's, else the annotation's, else the environment's. */
static int find_listener(const struct oci_seccomp *seccomp, char *const *annotations,
                         const char **ret, struct err *err)
{
        const char *path = seccomp->listener_path;
        *ret = path;
        if (!str_empty(path))
                return 0;
        path = json_map_get(annotations, RECEIVER);
        if (!path)
                path = getenv(RECEIVER_ENV);
        if (path && *path != '/')
                return err_plain(err, EINVAL, "seccomp: " RECEIVER " '%s' is not an absolute path",
                                 path);
        *ret = path;
        return 0;
}

static int check(const struct oci_seccomp *seccomp, const char *listener, struct err *err)
{
        bool notifies = false;
        if (seccomp->default_action == OCI_SECCOMP_NOTIFY)
                return err_plain(err, EINVAL,
                                 "seccomp: SCMP_ACT_NOTIFY cannot be used as default action");
        for (size_t i = 0; i < seccomp->syscalls_length; i++) {
                const struct oci_syscall *call = &seccomp->syscalls[i];
                if (call->action != OCI_SECCOMP_NOTIFY)
                        continue;
                notifies = true;
                /* The runtime itself writes before it executes the program. */
                if (strv_contains(call->names, "write"))
                        return err_plain(err, EINVAL,
                                         "seccomp: SCMP_ACT_NOTIFY cannot be used for the write "
                                         "syscall");
        }
        if (notifies && str_empty(listener))
                return err_plain(err, EINVAL,
                                 "seccomp: SCMP_ACT_NOTIFY needs a listenerPath, or the "
                                 "annotation " RECEIVER ", to send to");
        if (!notifies && !str_empty(seccomp->listener_metadata) && str_empty(listener))
                return err_plain(err, EINVAL,
                                 "seccomp: listenerMetadata is set without a listenerPath");
        return 0;
}

static struct seccomp_rule *rules_of(const struct oci_seccomp *seccomp,
                                     struct seccomp_condition **ret_conditions)
{
        size_t total = 0, used = 0;
        for (size_t i = 0; i < seccomp->syscalls_length; i++)
                total += seccomp->syscalls[i].args_length;
        struct seccomp_condition *conditions = xcalloc(total + 1, sizeof(*conditions));
        struct seccomp_rule *rules = xcalloc(seccomp->syscalls_length + 1, sizeof(*rules));
        for (size_t i = 0; i < seccomp->syscalls_length; i++) {
                const struct oci_syscall *call = &seccomp->syscalls[i];
                rules[i] = (struct seccomp_rule){
                        .names = call->names,
                        .action = actions[call->action],
                        .errno_value = call->has_errno_ret ? call->errno_ret : EPERM,
                        .conditions = &conditions[used],
                        .conditions_length = call->args_length,
                };
                for (size_t a = 0; a < call->args_length; a++)
                        conditions[used++] = (struct seccomp_condition){ call->args[a].index,
                                                                         compares[call->args[a].op],
                                                                         call->args[a].value,
                                                                         call->args[a].value_two };
        }
        *ret_conditions = conditions;
        return rules;
}

static int compile(const struct seccomp_profile *profile, const char *root,
                   struct seccomp_program *ret, struct err *err)
{
        auto_buf key = { 0 };
        filter_cache_key(profile, &key);
        if (filter_cache_load(root, &key, ret) == 0)
                return 0;
        int r = seccomp_compile(profile, ret, err);
        if (r == 0)
                filter_cache_store(root, &key, ret);
        return r;
}

/* Otherwise they are passed over: a policy names the calls of every kernel. */
static int check_names(const struct oci_seccomp *seccomp, struct err *err)
{
        for (size_t i = 0; i < seccomp->syscalls_length; i++)
                for (char **name = seccomp->syscalls[i].names; name && *name; name++)
                        if (!seccomp_knows(*name))
                                return err_plain(
                                        err, EINVAL,
                                        "seccomp: the system call '%s' is unknown, and the "
                                        "annotation " FAIL_UNKNOWN " is set",
                                        *name);
        return 0;
}

int filter_create(const struct oci_seccomp *seccomp, char *const *annotations, const char *root,
                  struct filter *ret, struct err *err)
{
        struct filter filter = { 0 };
        if (!seccomp) {
                *ret = filter;
                return 0;
        }
        const char *listener;
        int r = find_listener(seccomp, annotations, &listener, err);
        if (r == 0)
                r = check(seccomp, listener, err);
        if (r == 0 && json_map_get(annotations, FAIL_UNKNOWN))
                r = check_names(seccomp, err);
        if (r < 0)
                return r;
        for (char **name = seccomp->flags; name && *name; name++) {
                unsigned flag = 0;
                if (**name && seccomp_flag_parse(*name, &flag) < 0)
                        return err_plain(err, EINVAL, "seccomp flag '%s' is unknown", *name);
                filter.flags |= flag;
        }
        struct seccomp_condition *conditions;
        struct seccomp_rule *rules = rules_of(seccomp, &conditions);
        struct seccomp_profile profile = {
                .default_action = actions[seccomp->default_action],
                .default_errno = seccomp->has_default_errno_ret ? seccomp->default_errno_ret
                                                                : EPERM,
                .architectures = seccomp->architectures,
                .rules = rules,
                .rules_length = seccomp->syscalls_length,
        };
        r = compile(&profile, root, &filter.program, err);
        free(rules);
        free(conditions);
        if (r < 0)
                return r;
        /* Who listens is sent a descriptor, though no rule may ever use it. */
        filter.program.notifies |= !str_empty(listener);
        filter.listener_path = listener;
        filter.listener_metadata = seccomp->listener_metadata;
        *ret = filter;
        return 0;
}

void filter_finish(struct filter *filter)
{
        seccomp_program_finish(&filter->program);
        *filter = (struct filter){ 0 };
}
