#include "runtime/mount_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/str.h"

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

enum option_kind {
        ATTRIBUTE_SET,
        ATTRIBUTE_CLEAR,
        TREE_SET,
        TREE_CLEAR,
        PROPAGATION,
        PROPAGATION_TREE,
        BIND,
        RBIND,
        REMOUNT,
        COPY_UP,
        IDMAP,
        RIDMAP,
        NOFOLLOW,
        SUPER,       /* a flag of the file system: handed over */
        SUPER_CLEAR, /* its opposite, which is the default */
        IGNORED,
};

struct option {
        const char *name;
        enum option_kind kind;
        uint64_t value;
};

/* Access time is one field of three values, not a bit: setting one of them
 * clears the others, and clearing any goes back to relatime. */
static const struct option options[] = {
        { "defaults", IGNORED, 0 },
        { "ro", ATTRIBUTE_SET, MOUNT_ATTR_RDONLY },
        { "rw", ATTRIBUTE_CLEAR, MOUNT_ATTR_RDONLY },
        { "nosuid", ATTRIBUTE_SET, MOUNT_ATTR_NOSUID },
        { "suid", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOSUID },
        { "nodev", ATTRIBUTE_SET, MOUNT_ATTR_NODEV },
        { "dev", ATTRIBUTE_CLEAR, MOUNT_ATTR_NODEV },
        { "noexec", ATTRIBUTE_SET, MOUNT_ATTR_NOEXEC },
        { "exec", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOEXEC },
        { "noatime", ATTRIBUTE_SET, MOUNT_ATTR_NOATIME },
        { "atime", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOATIME },
        { "strictatime", ATTRIBUTE_SET, MOUNT_ATTR_STRICTATIME },
        { "nostrictatime", ATTRIBUTE_CLEAR, MOUNT_ATTR_STRICTATIME },
        { "relatime", ATTRIBUTE_SET, MOUNT_ATTR_RELATIME },
        { "norelatime", ATTRIBUTE_CLEAR, MOUNT_ATTR_RELATIME },
        { "nodiratime", ATTRIBUTE_SET, MOUNT_ATTR_NODIRATIME },
        { "diratime", ATTRIBUTE_CLEAR, MOUNT_ATTR_NODIRATIME },
        { "nosymfollow", ATTRIBUTE_SET, MOUNT_ATTR_NOSYMFOLLOW },
        { "symfollow", ATTRIBUTE_CLEAR, MOUNT_ATTR_NOSYMFOLLOW },
        { "rro", TREE_SET, MOUNT_ATTR_RDONLY },
        { "rrw", TREE_CLEAR, MOUNT_ATTR_RDONLY },
        { "rnosuid", TREE_SET, MOUNT_ATTR_NOSUID },
        { "rsuid", TREE_CLEAR, MOUNT_ATTR_NOSUID },
        { "rnodev", TREE_SET, MOUNT_ATTR_NODEV },
        { "rdev", TREE_CLEAR, MOUNT_ATTR_NODEV },
        { "rnoexec", TREE_SET, MOUNT_ATTR_NOEXEC },
        { "rexec", TREE_CLEAR, MOUNT_ATTR_NOEXEC },
        { "rnoatime", TREE_SET, MOUNT_ATTR_NOATIME },
        { "ratime", TREE_CLEAR, MOUNT_ATTR_NOATIME },
        { "rstrictatime", TREE_SET, MOUNT_ATTR_STRICTATIME },
        { "rnostrictatime", TREE_CLEAR, MOUNT_ATTR_STRICTATIME },
        { "rrelatime", TREE_SET, MOUNT_ATTR_RELATIME },
        { "rnorelatime", TREE_CLEAR, MOUNT_ATTR_RELATIME },
        { "rnodiratime", TREE_SET, MOUNT_ATTR_NODIRATIME },
        { "rdiratime", TREE_CLEAR, MOUNT_ATTR_NODIRATIME },
        { "rnosymfollow", TREE_SET, MOUNT_ATTR_NOSYMFOLLOW },
        { "rsymfollow", TREE_CLEAR, MOUNT_ATTR_NOSYMFOLLOW },
        { "private", PROPAGATION, MS_PRIVATE },
        { "shared", PROPAGATION, MS_SHARED },
        { "slave", PROPAGATION, MS_SLAVE },
        { "unbindable", PROPAGATION, MS_UNBINDABLE },
        { "rprivate", PROPAGATION_TREE, MS_PRIVATE },
        { "rshared", PROPAGATION_TREE, MS_SHARED },
        { "rslave", PROPAGATION_TREE, MS_SLAVE },
        { "runbindable", PROPAGATION_TREE, MS_UNBINDABLE },
        { "bind", BIND, 0 },
        { "rbind", RBIND, 0 },
        { "remount", REMOUNT, 0 },
        { "tmpcopyup", COPY_UP, 0 },
        { "idmap", IDMAP, 0 },
        { "ridmap", RIDMAP, 0 },
        { "src-nofollow", NOFOLLOW, 0 },
        { "copy-symlink", NOFOLLOW, 0 },
        { "dest-nofollow", IGNORED, 0 },
        { "sync", SUPER, 0 },
        { "async", SUPER_CLEAR, 0 },
        { "dirsync", SUPER, 0 },
        { "lazytime", SUPER, 0 },
        { "nolazytime", SUPER_CLEAR, 0 },
        { "mand", SUPER, 0 },
        { "nomand", SUPER_CLEAR, 0 },
        { "iversion", SUPER, 0 },
        { "noiversion", SUPER_CLEAR, 0 },
        { "silent", IGNORED, 0 },
        { "loud", IGNORED, 0 },
};

static bool is_access_time(uint64_t value)
{
        return value == MOUNT_ATTR_NOATIME || value == MOUNT_ATTR_STRICTATIME ||
               value == MOUNT_ATTR_RELATIME;
}

static void change(uint64_t *set, uint64_t *clear, uint64_t value, bool on)
{
        if (is_access_time(value)) {
                *set &= ~(uint64_t)MOUNT_ATTR__ATIME;
                *clear |= MOUNT_ATTR__ATIME;
                if (on)
                        *set |= value;
                return;
        }
        if (on) {
                *set |= value;
                *clear &= ~value;
        } else {
                *set &= ~value;
                *clear |= value;
        }
}

static void apply(const struct option *option, const char *word, struct mount_options *to)
{
        switch (option->kind) {
        case ATTRIBUTE_SET:
        case ATTRIBUTE_CLEAR:
                change(&to->set, &to->clear, option->value, option->kind == ATTRIBUTE_SET);
                if (option->value == MOUNT_ATTR_RDONLY)
                        to->read_only = option->kind == ATTRIBUTE_SET;
                break;
        case TREE_SET:
        case TREE_CLEAR:
                change(&to->tree_set, &to->tree_clear, option->value, option->kind == TREE_SET);
                break;
        case PROPAGATION:
        case PROPAGATION_TREE:
                to->propagation = option->value;
                to->propagation_recursive = option->kind == PROPAGATION_TREE;
                break;
        case BIND:
                to->bind = true;
                break;
        case RBIND:
                to->bind = to->recursive = true;
                break;
        case REMOUNT:
                to->remount = true;
                break;
        case COPY_UP:
                to->copy_up = true;
                break;
        case IDMAP:
                to->idmap = true;
                break;
        case RIDMAP:
                to->idmap = to->idmap_recursive = true;
                break;
        case NOFOLLOW:
                to->source_nofollow = true;
                break;
        case SUPER:
                strv_push(&to->data, word);
                break;
        case SUPER_CLEAR:
        case IGNORED:
                break;
        }
}

int mount_options_parse(char *const *words, struct mount_options *ret, struct err *err)
{
        struct mount_options result = { 0 };
        for (; words && *words; words++) {
                const struct option *found = NULL;
                for (size_t i = 0; i < ELEMENTS(options) && !found; i++)
                        if (streq(options[i].name, *words))
                                found = &options[i];
                if (found) {
                        apply(found, *words, &result);
                } else if (**words == '=' || strchr(*words, '\n')) {
                        mount_options_finish(&result);
                        return err_plain(err, EINVAL, "mount option '%s' is malformed", *words);
                } else if (**words) {
                        strv_push(&result.data, *words);
                }
        }
        *ret = result;
        return 0;
}

void mount_options_finish(struct mount_options *to)
{
        strv_free(to->data);
        *to = (struct mount_options){ 0 };
}

char **mount_options_known(void)
{
        char **names = NULL;
        for (size_t i = 0; i < ELEMENTS(options); i++)
                strv_push(&names, options[i].name);
        return names;
}
