#include "sys/caps.h"

#include <ctype.h>
#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"

static const char *const names[] = {
        [CAP_CHOWN] = "CAP_CHOWN",
        [CAP_DAC_OVERRIDE] = "CAP_DAC_OVERRIDE",
        [CAP_DAC_READ_SEARCH] = "CAP_DAC_READ_SEARCH",
        [CAP_FOWNER] = "CAP_FOWNER",
        [CAP_FSETID] = "CAP_FSETID",
        [CAP_KILL] = "CAP_KILL",
        [CAP_SETGID] = "CAP_SETGID",
        [CAP_SETUID] = "CAP_SETUID",
        [CAP_SETPCAP] = "CAP_SETPCAP",
        [CAP_LINUX_IMMUTABLE] = "CAP_LINUX_IMMUTABLE",
        [CAP_NET_BIND_SERVICE] = "CAP_NET_BIND_SERVICE",
        [CAP_NET_BROADCAST] = "CAP_NET_BROADCAST",
        [CAP_NET_ADMIN] = "CAP_NET_ADMIN",
        [CAP_NET_RAW] = "CAP_NET_RAW",
        [CAP_IPC_LOCK] = "CAP_IPC_LOCK",
        [CAP_IPC_OWNER] = "CAP_IPC_OWNER",
        [CAP_SYS_MODULE] = "CAP_SYS_MODULE",
        [CAP_SYS_RAWIO] = "CAP_SYS_RAWIO",
        [CAP_SYS_CHROOT] = "CAP_SYS_CHROOT",
        [CAP_SYS_PTRACE] = "CAP_SYS_PTRACE",
        [CAP_SYS_PACCT] = "CAP_SYS_PACCT",
        [CAP_SYS_ADMIN] = "CAP_SYS_ADMIN",
        [CAP_SYS_BOOT] = "CAP_SYS_BOOT",
        [CAP_SYS_NICE] = "CAP_SYS_NICE",
        [CAP_SYS_RESOURCE] = "CAP_SYS_RESOURCE",
        [CAP_SYS_TIME] = "CAP_SYS_TIME",
        [CAP_SYS_TTY_CONFIG] = "CAP_SYS_TTY_CONFIG",
        [CAP_MKNOD] = "CAP_MKNOD",
        [CAP_LEASE] = "CAP_LEASE",
        [CAP_AUDIT_WRITE] = "CAP_AUDIT_WRITE",
        [CAP_AUDIT_CONTROL] = "CAP_AUDIT_CONTROL",
        [CAP_SETFCAP] = "CAP_SETFCAP",
        [CAP_MAC_OVERRIDE] = "CAP_MAC_OVERRIDE",
        [CAP_MAC_ADMIN] = "CAP_MAC_ADMIN",
        [CAP_SYSLOG] = "CAP_SYSLOG",
        [CAP_WAKE_ALARM] = "CAP_WAKE_ALARM",
        [CAP_BLOCK_SUSPEND] = "CAP_BLOCK_SUSPEND",
        [CAP_AUDIT_READ] = "CAP_AUDIT_READ",
        [CAP_PERFMON] = "CAP_PERFMON",
        [CAP_BPF] = "CAP_BPF",
        [CAP_CHECKPOINT_RESTORE] = "CAP_CHECKPOINT_RESTORE",
};
_Static_assert(ELEMENTS(names) <= 64, "masks have 64 bits");

int caps_parse(const char *name, int *ret_cap)
{
        const char *bare = strncasecmp(name, "CAP_", 4) == 0 ? name + 4 : name;
        for (size_t cap = 0; cap < ELEMENTS(names); cap++) {
                if (strcasecmp(bare, names[cap] + 4) == 0) {
                        *ret_cap = (int)cap;
                        return 0;
                }
        }
        return -EINVAL;
}

const char *caps_name(int cap)
{
        return cap >= 0 && (size_t)cap < ELEMENTS(names) ? names[cap] : NULL;
}

int caps_last(void)
{
        static int last; /* of the running kernel; 0 before it was asked */
        if (last)
                return last;
        int low = 0, high = 63; /* low is known; high + 1 is not */
        while (low < high) {
                int middle = (low + high + 1) / 2;
                if (prctl(PR_CAPBSET_READ, middle, 0, 0, 0) >= 0)
                        low = middle;
                else
                        high = middle - 1;
        }
        return last = low;
}

uint64_t caps_mask(char *const *list, void (*unknown)(void *arg, const char *name), void *arg)
{
        uint64_t mask = 0;
        int last = list && *list ? caps_last() : 0;
        for (; list && *list; list++) {
                int cap;
                if (caps_parse(*list, &cap) == 0 && cap <= last)
                        mask |= 1ull << cap;
                else if (unknown)
                        unknown(arg, *list);
        }
        return mask;
}

static int kernel_capget(struct __user_cap_data_struct data[2])
{
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        return (int)syscall(SYS_capget, &header, data);
}

int caps_get(struct caps_sets *ret, struct err *err)
{
        struct __user_cap_data_struct data[2];
        if (kernel_capget(data) < 0)
                return err_set(err, errno, "read capabilities");
        struct caps_sets sets = {
                .effective = data[0].effective | (uint64_t)data[1].effective << 32,
                .permitted = data[0].permitted | (uint64_t)data[1].permitted << 32,
                .inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32,
        };
        for (int cap = 0, last = caps_last(); cap <= last; cap++) {
                if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
                        sets.bounding |= 1ull << cap;
                if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
                        sets.ambient |= 1ull << cap;
        }
        *ret = sets;
        return 0;
}

int caps_drop_bounding(uint64_t mask, struct err *err)
{
        for (int cap = 0; cap < 64; cap++) {
                if (mask & (1ull << cap))
                        continue;
                if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0)
                        continue;
                if (errno == EINVAL) /* beyond the last one */
                        return 0;
                int error = errno;
                if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 0)
                        continue;
                return err_set(err, error, "drop %s from the bounding set", caps_name(cap));
        }
        return 0;
}

/* Names what was refused, for "Operation not permitted" alone helps nobody. */
static int refused(const struct caps_sets *wanted, int error, struct err *err)
{
        struct __user_cap_data_struct data[2];
        if (kernel_capget(data) == 0) {
                uint64_t had = data[0].permitted | (uint64_t)data[1].permitted << 32;
                uint64_t missing = (wanted->permitted | wanted->effective) & ~had;
                if (missing) {
                        const char *name = caps_name(__builtin_ctzll(missing));
                        return err_set(err, error,
                                       "capability %s cannot be given: this process has not got it",
                                       name ? name : "beyond the table");
                }
        }
        return err_set(err, error, "set capabilities");
}

static int set_ambient(uint64_t mask, struct err *err)
{
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return mask ? err_set(err, errno, "clear ambient capabilities") : 0;
        for (; mask; mask &= mask - 1) {
                int cap = __builtin_ctzll(mask);
                if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
                        return err_set(err, errno, "ambient capability %s", caps_name(cap));
        }
        return 0;
}

static int kernel_capset(const struct caps_sets *sets, struct err *err)
{
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = {
                { (uint32_t)sets->effective, (uint32_t)sets->permitted,
                  (uint32_t)sets->inheritable },
                { (uint32_t)(sets->effective >> 32), (uint32_t)(sets->permitted >> 32),
                  (uint32_t)(sets->inheritable >> 32) },
        };
        if (syscall(SYS_capset, &header, data) < 0)
                return refused(sets, errno, err);
        return 0;
}

int caps_set(const struct caps_sets *sets, struct err *err)
{
        int r = kernel_capset(sets, err);
        return r == 0 ? set_ambient(sets->ambient, err) : r;
}

int caps_raise_permitted(struct err *err)
{
        struct caps_sets sets;
        int r = caps_get(&sets, err);
        if (r < 0)
                return r;
        sets.effective = sets.permitted;
        return kernel_capset(&sets, err);
}
