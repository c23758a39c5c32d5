#include "sys/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"

/* Of kernels newer than the headers. */
struct ruleset {
        uint64_t files, networks, scopes;
};

static const struct {
        int version; /* since when */
        struct ruleset adds;
} versions[] = {
        { 1, { .files = (1u << 13) - 1 } },
        { 2, { .files = 1u << 13 } }, /* linking to another directory */
        { 3, { .files = 1u << 14 } }, /* truncation */
        { 4, { .networks = 3 } },     /* binding, connecting */
        { 5, { .files = 1u << 15 } }, /* ioctl of devices */
        { 6, { .scopes = 1 } },       /* abstract Unix sockets */
};

static int known_version(void)
{
        long version = syscall(SYS_landlock_create_ruleset, NULL, 0,
                               LANDLOCK_CREATE_RULESET_VERSION);
        return version < 0 ? 0 : (int)version;
}

int landlock_deny(const struct landlock_denial *denial, struct err *err)
{
        struct ruleset all = { 0 };
        int version = known_version();
        for (unsigned i = 0; i < ELEMENTS(versions) && versions[i].version <= version; i++) {
                if (denial->files)
                        all.files |= versions[i].adds.files;
                if (!denial->networks)
                        continue;
                all.networks |= versions[i].adds.networks;
                all.scopes |= versions[i].adds.scopes;
        }
        if (!all.files && !all.networks && !all.scopes)
                return 0;
        /* An older kernel takes a shorter structure; what is left out is zero then. */
        size_t size = version >= 6 ? sizeof(all) : version >= 4 ? 16 : 8;
        auto_fd fd = (int)syscall(SYS_landlock_create_ruleset, &all, size, 0);
        if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) < 0)
                return err_set(err, errno, "Landlock");
        return version;
}
