/* The format is the kernel's "newc" cpio (Documentation/driver-api/early-userspace/
 * buffer-format.rst), not compressed: the guest would pay for it at every start. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "base/table.h"
#include "guest/cache.h"
#include "guest/guest.h"

#define FORMAT_VERSION 3
#define SUFFIX         ".cpio"
#define FILE_SIZE_MAX  ((size_t)64 << 20)
#define DEPTH_MAX      12
#define DEPENDS        "depends="
#define MODULES_MAX    99 /* two digits name their turn */
#define MODE_DIRECTORY 040755
#define MODE_PROGRAM   0100755
#define MODE_FILE      0100644
#define CPIO_ALIGN     4

static const char *const wanted[] = { "virtio_pci",     "virtiofs",   "vmw_vsock_virtio_transport",
                                      "virtio_balloon", "virtio_rng", "virtio_net" };
/* Loaded only where the root is made of layers. */
static const char *const wanted_for_layers[] = { "virtio_blk", "erofs", "overlay" };

struct modules {
        char **paths;  /* of all files *.ko */
        char **loaded; /* names, in the order of loading */
        struct buf *archive;
        unsigned serial;
        const char *place; /* of the next one */
};

static void pad(struct buf *archive)
{
        while (archive->size % CPIO_ALIGN)
                buf_putc(archive, '\0');
}

static void put_entry(struct modules *m, const char *name, unsigned mode, const void *data,
                      size_t size)
{
        buf_printf(m->archive, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x",
                   ++m->serial, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, strlen(name) + 1, 0);
        buf_append(m->archive, name, strlen(name) + 1);
        pad(m->archive);
        buf_append(m->archive, data, size);
        pad(m->archive);
}

static int put_program(struct modules *m, const char *name, const char *path, struct err *err)
{
        auto_free char *data = NULL;
        size_t size;
        int r = file_read(AT_FDCWD, path, FILE_SIZE_MAX, &data, &size, err);
        if (r == 0)
                put_entry(m, name, MODE_PROGRAM, data, size);
        return r;
}

/* File names have '-' where the kernel's names have '_'. */
static char *module_name(const char *path)
{
        const char *base = strrchr(path, '/') + 1;
        char *name = xstrndup(base, strcspn(base, "."));
        for (char *c = name; *c; c++)
                if (*c == '-')
                        *c = '_';
        return name;
}

/* Not every file system says what an entry is. */
static bool is_directory(DIR *dir, const struct dirent *entry)
{
        struct stat st;
        if (entry->d_type != DT_UNKNOWN)
                return entry->d_type == DT_DIR;
        return fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
               S_ISDIR(st.st_mode);
}

/* What a directory holds: more directories, and modules. */
static int list(const char *path, char ***directories, char ***modules, struct err *err)
{
        auto_dir dir = opendir(path);
        if (!dir)
                return err_set(err, errno, "read %s", path);
        for (struct dirent *entry; (entry = readdir(dir));) {
                auto_free char *below = xasprintf("%s/%s", path, entry->d_name);
                if (entry->d_name[0] != '.' && is_directory(dir, entry))
                        strv_push(directories, below);
                else if (strstr(entry->d_name, ".ko"))
                        strv_push(modules, below);
        }
        return 0;
}

/* Links are not followed, and what is too deep for a name is an error: it ends. */
static int walk(const char *path, char ***modules, struct err *err)
{
        auto_strv directories = NULL;
        strv_push(&directories, path);
        int r = 0;
        for (size_t i = 0; r == 0 && directories[i]; i++)
                r = list(directories[i], &directories, modules, err);
        return r;
}

static const char *find_module(const struct modules *m, const char *name)
{
        for (char **path = m->paths; path && *path; path++) {
                auto_free char *own = module_name(*path);
                if (streq(own, name))
                        return *path;
        }
        return NULL;
}

static int add_module(struct modules *m, const char *name, int depth, struct err *err);

/* The ".modinfo" section holds NUL-terminated texts "key=value". */
static int add_needed(struct modules *m, const char *data, size_t size, int depth, struct err *err)
{
        const char key[] = "\0" DEPENDS;
        const char *found = memmem(data, size, key, sizeof(key) - 1);
        if (!found)
                return 0;
        auto_free char *list = xstrdup(found + sizeof(key) - 1);
        auto_strv names = str_split(list, ',');
        for (char **name = names; *name; name++) {
                for (char *c = *name; *c; c++)
                        if (*c == '-')
                                *c = '_';
                int r = **name ? add_module(m, *name, depth + 1, err) : 0;
                if (r < 0)
                        return r;
        }
        return 0;
}

static int add_module(struct modules *m, const char *name, int depth, struct err *err)
{
        const char *path = find_module(m, name);
        if (!path || strv_contains(m->loaded, name)) /* not a module: built in */
                return 0;
        if (!str_ends(path, ".ko"))
                return err_plain(err, EOPNOTSUPP,
                                 "module %s is compressed, which is not supported; use a kernel "
                                 "whose modules are not",
                                 path);
        if (depth > DEPTH_MAX)
                return err_plain(
                        err, ELOOP,
                        "module %s needs itself, or is needed by way of more than %d others", path,
                        DEPTH_MAX);
        auto_free char *data = NULL;
        size_t size;
        int r = file_read(AT_FDCWD, path, FILE_SIZE_MAX, &data, &size, err);
        if (r == 0)
                r = add_needed(m, data, size, depth, err);
        if (r < 0)
                return r;
        size_t turn = strv_length(m->loaded);
        if (turn >= MODULES_MAX)
                return err_plain(err, E2BIG, "more than %d modules are needed", MODULES_MAX);
        auto_free char *entry = xasprintf("%s/%02zu-%s.ko", m->place, turn, name);
        put_entry(m, entry, MODE_FILE, data, size);
        strv_push(&m->loaded, name);
        return 0;
}

/* PREFIX/boot/vmlinuz-VERSION -> PREFIX/lib/modules/VERSION */
static char *modules_of(const char *kernel)
{
        const char *version = strstr(kernel, "/boot/vmlinuz-");
        return version ? xasprintf("%.*s/lib/modules/%s", (int)(version - kernel), kernel,
                                   version + strlen("/boot/vmlinuz-"))
                       : NULL;
}

int initramfs_build(const char *kernel, const char *agent, const char *runtime, struct buf *archive,
                    struct err *err)
{
        struct modules m = { .archive = archive };
        static const char *const directories[] = { "bin",  "dev",  &AGENT_MODULES[1],
                                                   "proc", "root", &AGENT_LAYER_MODULES[1],
                                                   "run",  "sys",  "tmp" };
        for (size_t i = 0; i < ELEMENTS(directories); i++)
                put_entry(&m, directories[i], MODE_DIRECTORY, "", 0);
        int r = put_program(&m, "init", agent, err);
        if (r == 0)
                r = put_program(&m, "bin/isle-runtime", runtime, err);
        auto_free char *directory = modules_of(kernel);
        /* A kernel of its own making has all built in. */
        if (r == 0 && directory && access(directory, F_OK) == 0)
                r = walk(directory, &m.paths, err);
        m.place = &AGENT_MODULES[1];
        for (size_t i = 0; r == 0 && i < ELEMENTS(wanted); i++)
                r = add_module(&m, wanted[i], 0, err);
        m.place = &AGENT_LAYER_MODULES[1];
        for (size_t i = 0; r == 0 && i < ELEMENTS(wanted_for_layers); i++)
                r = add_module(&m, wanted_for_layers[i], 0, err);
        put_entry(&m, "TRAILER!!!", 0, "", 0);
        strv_free(m.paths);
        strv_free(m.loaded);
        return r;
}

/* Names what it is made of, so that whatever changes makes another one. */
static int name_of(const char *kernel, const char *agent, const char *runtime, char **ret,
                   struct err *err)
{
        const char *parts[] = { kernel, agent, runtime };
        auto_buf text = { 0 };
        for (size_t i = 0; i < ELEMENTS(parts); i++) {
                struct stat st;
                if (stat(parts[i], &st) < 0)
                        return err_set(err, errno, "%s", parts[i]);
                buf_printf(&text, "%d %s %ju %ju %jd.%09ld;", FORMAT_VERSION, parts[i],
                           (uintmax_t)st.st_ino, (uintmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec,
                           st.st_mtim.tv_nsec);
        }
        *ret = xasprintf(GUEST_CACHE "/initramfs-%016jx" SUFFIX,
                         (uintmax_t)hash_bytes(text.data, text.size, 0));
        return 0;
}

int initramfs_ensure(const char *kernel, const char *agent, const char *runtime, char **ret_path,
                     struct err *err)
{
        auto_free char *path = NULL;
        auto_buf archive = { 0 };
        auto_fd fd = -1;
        int r = name_of(kernel, agent, runtime, &path, err);
        if (r == 0)
                fd = cache_use(AT_FDCWD, path);
        if (r == 0 && fd < 0) {
                cache_remove_unused(GUEST_CACHE, SUFFIX);
                r = initramfs_build(kernel, agent, runtime, &archive, err);
                if (r == 0)
                        r = file_make_dirs(AT_FDCWD, GUEST_CACHE, 0755, err);
                if (r == 0)
                        r = file_replace(AT_FDCWD, path, archive.data, archive.size, 0644, false,
                                         err);
        }
        if (r < 0)
                return err_wrap(err, "initial ramdisk of the guest");
        *ret_path = take_ptr(path);
        return 0;
}
