#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "runtime/setup.h"

#define DEFAULT_UMASK 022
#define IOPRIO_SHIFT  13
#define CPUS_MAX      8192

/* sched_setattr(2), of which the C library knows nothing yet. */
struct kernel_sched_attr {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
        uint32_t util_min, util_max;
};

static int set_rlimits(const struct setup *setup, struct err *err)
{
        for (size_t i = 0; i < setup->process->rlimits_length; i++) {
                const struct plan_rlimit *limit = &setup->process->rlimits[i];
                struct rlimit value = { limit->soft, limit->hard };
                if (setrlimit((__rlimit_resource_t)limit->resource, &value) == 0)
                        continue;
                const char *type = setup->process->oci->rlimits[i].type;
                if (errno == EPERM)
                        return err_set(err, EPERM,
                                       "error setting rlimit %s: raising the hard limit to %llu "
                                       "needs CAP_SYS_RESOURCE",
                                       type, (unsigned long long)limit->hard);
                return err_set(err, errno, "error setting rlimit %s", type);
        }
        return 0;
}

static int set_scheduler(const struct oci_scheduler *from, struct err *err)
{
        static const uint32_t policies[] = {
                [OCI_SCHED_UNSET] = 0, [OCI_SCHED_OTHER] = 0,    [OCI_SCHED_FIFO] = 1,
                [OCI_SCHED_RR] = 2,    [OCI_SCHED_BATCH] = 3,    [OCI_SCHED_ISO] = 4,
                [OCI_SCHED_IDLE] = 5,  [OCI_SCHED_DEADLINE] = 6,
        };
        static const struct {
                const char *name;
                uint64_t bit;
        } flags[] = {
                { "SCHED_FLAG_RESET_ON_FORK", 0x01 },  { "SCHED_FLAG_RECLAIM", 0x02 },
                { "SCHED_FLAG_DL_OVERRUN", 0x04 },     { "SCHED_FLAG_KEEP_POLICY", 0x08 },
                { "SCHED_FLAG_KEEP_PARAMS", 0x10 },    { "SCHED_FLAG_UTIL_CLAMP_MIN", 0x20 },
                { "SCHED_FLAG_UTIL_CLAMP_MAX", 0x40 },
        };
        if (!from)
                return 0;
        struct kernel_sched_attr attr = {
                .size = sizeof(attr),
                .policy = policies[from->policy],
                .nice = from->nice,
                .priority = (uint32_t)from->priority,
                .runtime = from->runtime_ns,
                .deadline = from->deadline_ns,
                .period = from->period_ns,
        };
        for (char **name = from->flags; name && *name; name++) {
                size_t i = 0;
                while (i < ELEMENTS(flags) && !streq(flags[i].name, *name))
                        i++;
                if (i == ELEMENTS(flags))
                        return err_plain(err, EINVAL, "scheduler flag '%s' is unknown", *name);
                attr.flags |= flags[i].bit;
        }
        if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
                return err_set(err, errno, "set scheduler");
        return 0;
}

static int set_io_priority(const struct oci_io_priority *from, struct err *err)
{
        static const int classes[] = { [OCI_IOPRIO_UNSET] = 0,
                                       [OCI_IOPRIO_RT] = 1,
                                       [OCI_IOPRIO_BE] = 2,
                                       [OCI_IOPRIO_IDLE] = 3 };
        if (!from)
                return 0;
        int value = classes[from->io_class] << IOPRIO_SHIFT | (from->priority & 0x1fff);
        if (syscall(SYS_ioprio_set, 1 /* a process */, 0, value) < 0)
                return err_set(err, errno, "set ioPriority");
        return 0;
}

static int set_personality(const struct oci_linux *linux_, struct err *err)
{
        if (!linux_ || !linux_->personality)
                return 0;
        if (linux_->personality->flags && *linux_->personality->flags)
                return err_plain(err, EOPNOTSUPP, "personality flags are not supported");
        unsigned long domain = linux_->personality->domain == OCI_PERSONALITY_LINUX32 ? PER_LINUX32
                                                                                      : PER_LINUX;
        if (personality(domain) < 0)
                return err_set(err, errno, "set personality");
        return 0;
}

static int set_affinity(const char *cpus, struct err *err)
{
        unsigned long bits[CPUS_MAX / (8 * sizeof(long))] = { 0 };
        if (str_empty(cpus))
                return 0;
        if (str_to_bits(cpus, bits, CPUS_MAX) < 0)
                return err_plain(err, EINVAL, "execCPUAffinity '%s' is not a CPU list", cpus);
        if (syscall(SYS_sched_setaffinity, 0, sizeof(bits), bits) < 0)
                return err_set(err, errno, "set CPU affinity '%s'", cpus);
        return 0;
}

static int set_memory_policy(const struct oci_linux *linux_, struct err *err)
{
        static const int modes[] = {
                [OCI_MPOL_UNSET] = 0,          [OCI_MPOL_DEFAULT] = 0,
                [OCI_MPOL_PREFERRED] = 1,      [OCI_MPOL_BIND] = 2,
                [OCI_MPOL_INTERLEAVE] = 3,     [OCI_MPOL_LOCAL] = 4,
                [OCI_MPOL_PREFERRED_MANY] = 5, [OCI_MPOL_WEIGHTED_INTERLEAVE] = 6,
        };
        static const struct {
                const char *name;
                int bit;
        } flags[] = { { "MPOL_F_STATIC_NODES", 1 << 15 },
                      { "MPOL_F_RELATIVE_NODES", 1 << 14 },
                      { "MPOL_F_NUMA_BALANCING", 1 << 13 } };
        const struct oci_memory_policy *from = linux_ ? linux_->memory_policy : NULL;
        if (!from)
                return 0;
        int mode = modes[from->mode];
        for (char **name = from->flags; name && *name; name++) {
                size_t i = 0;
                while (i < ELEMENTS(flags) && !streq(flags[i].name, *name))
                        i++;
                if (i == ELEMENTS(flags))
                        return err_plain(err, EINVAL, "memory policy flag '%s' is unknown", *name);
                mode |= flags[i].bit;
        }
        unsigned long nodes[1024 / (8 * sizeof(long))] = { 0 };
        if (!str_empty(from->nodes) && str_to_bits(from->nodes, nodes, 1024) < 0)
                return err_plain(err, EINVAL, "memory policy nodes '%s' are not a list",
                                 from->nodes);
        if (syscall(SYS_set_mempolicy, mode, str_empty(from->nodes) ? NULL : nodes,
                    str_empty(from->nodes) ? 0ul : 1025ul) < 0)
                return err_set(err, errno, "set memory policy");
        return 0;
}

/* A session keyring of its own, or the container could read the host's keys. */
static int join_keyring(const char *name, struct err *err)
{
        if (!name)
                return 0;
        if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) < 0 && errno != ENOSYS)
                return err_set(err, errno, "join session keyring '%s'", name);
        return 0;
}

/* Without the module, a label that was asked for is an error: silence would be a hole. */
static int check_module(const char *label, const char *module, const char *enabled, struct err *err)
{
        if (str_empty(label) || access(enabled, F_OK) == 0)
                return 0;
        return err_plain(err, EOPNOTSUPP, "%s is not enabled on this host, which label '%s' needs",
                         module, label);
}

int attributes_check(const struct oci_process *oci, struct err *err)
{
        int r = check_module(oci->selinux_label, "SELinux", "/sys/fs/selinux/enforce", err);
        return r < 0 ? r
                     : check_module(oci->apparmor_profile, "AppArmor",
                                    "/sys/kernel/security/apparmor", err);
}

/* Tells the security modules the labels for exec. */
static int set_labels(const struct setup *setup, struct err *err)
{
        const struct oci_process *oci = setup->process->oci;
        int r = 0;
        if (!str_empty(oci->selinux_label)) {
                r = file_put(setup->proc_fd, "self/attr/exec", oci->selinux_label, err);
                if (r < 0)
                        return err_wrap(err, "set SELinux label '%s'", oci->selinux_label);
        }
        if (!str_empty(oci->apparmor_profile)) {
                auto_free char *text = xasprintf("exec %s", oci->apparmor_profile);
                r = file_put(setup->proc_fd, "self/attr/apparmor/exec", text, err);
                if (r < 0)
                        return err_wrap(err, "set AppArmor profile '%s'", oci->apparmor_profile);
        }
        return 0;
}

int attributes_apply(const struct setup *setup, struct err *err)
{
        const struct oci_process *oci = setup->process->oci;
        int r = join_keyring(setup->keyring, err);
        if (r == 0)
                r = set_labels(setup, err);
        if (r == 0)
                r = set_scheduler(oci->scheduler, err);
        if (r == 0)
                r = set_io_priority(oci->io_priority, err);
        if (r == 0)
                r = set_personality(setup->linux_, err);
        if (r == 0)
                r = set_affinity(setup->affinity, err);
        if (r == 0)
                r = set_memory_policy(setup->linux_, err);
        if (r == 0)
                r = set_rlimits(setup, err);
        umask(oci->user.has_umask ? oci->user.umask & 0777 : DEFAULT_UMASK);
        return r;
}
