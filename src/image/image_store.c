/* Opening and closing the image store, and its trash. */
#include "image/image_store.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/rand.h"
#include "image/durable.h"
#include "image/recover.h"
#include "image/registry.h"

#define LOCK_WAIT_NS (2 * NS_PER_S)
#define LOCK_POLL_NS 5000000

void image_notice(struct image_store *st, const char *format, ...)
{
        if (!st->notice)
                return;
        va_list ap;
        va_start(ap, format);
        auto_free char *text = xvasprintf(format, ap);
        va_end(ap);
        st->notice(st->notice_arg, text);
}

/* ---- staging and trash ------------------------------------------------- */

int image_staging(struct image_store *st, char ret_name[STAGING_NAME_SIZE], struct err *err)
{
        rand_hex(ret_name, 16);
        if (mkdirat(st->staging_fd, ret_name, 0700) < 0) {
                int code = errno;
                ret_name[0] = '\0';
                return err_set(err, code, "make a directory in '%s/staging'", st->root);
        }
        return 0;
}

int image_trash(struct image_store *st, int dirfd, const char *name, struct err *err)
{
        char target[STAGING_NAME_SIZE + 8] = "trash-";
        rand_hex(target + 6, 16);
        if (renameat(dirfd, name, st->staging_fd, target) < 0 && errno != ENOENT)
                return err_set(err, errno, "move '%s' out of the way", name);
        return 0;
}

static void empty_staging(struct image_store *st, const char *prefix)
{
        int fd = openat(st->staging_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;
        while (dir && (entry = readdir(dir)))
                if (entry->d_name[0] != '.' && str_starts(entry->d_name, prefix))
                        file_remove_tree(st->staging_fd, entry->d_name, NULL);
}

void image_empty_trash(struct image_store *st)
{
        empty_staging(st, "trash-");
}

/* ---- open -------------------------------------------------------------- */

static int open_dir(struct image_store *st, const char *name, mode_t mode, int *ret_fd,
                    struct err *err)
{
        int r = file_make_dirs(st->root_fd, name, mode, err);
        if (r < 0)
                return err_wrap(err, "image store '%s'", st->root), r;
        int fd = openat(st->root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s/%s'", st->root, name);
        *ret_fd = fd;
        return 0;
}

/* A child of one that was killed, made just before and not come to its exec yet, still holds
 * the lock for a moment. */
static int lock(const struct image_store *st, struct err *err)
{
        const struct timespec pause = { .tv_nsec = LOCK_POLL_NS };
        int64_t deadline = clock_monotonic_ns() + LOCK_WAIT_NS;
        while (flock(st->lock_fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EWOULDBLOCK && errno != EINTR)
                        return err_set(err, errno, "lock image store '%s'", st->root);
                if (clock_monotonic_ns() > deadline)
                        return err_plain(err, EBUSY,
                                         "image store '%s' is in use by another process", st->root);
                nanosleep(&pause, NULL);
        }
        return 0;
}

static int open_directories(struct image_store *st, struct err *err)
{
        int r = file_make_dirs(AT_FDCWD, st->root, 0711, err);
        if (r < 0)
                return err_wrap(err, "image store '%s'", st->root), r;
        st->root_fd = open(st->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (st->root_fd < 0)
                return err_set(err, errno, "open '%s'", st->root);
        /* A process in a user namespace looks files up below these. */
        const struct {
                const char *name;
                mode_t mode;
                int *fd;
        } directories[] = {
                { "layers", 0711, &st->layers_fd }, { "staging", 0700, &st->staging_fd },
                { "l", 0711, &st->links_fd },       { "snapshots", 0711, &st->snapshots_fd },
                { "content", 0700, &st->lock_fd },
        };
        for (size_t i = 0; r == 0 && i < ELEMENTS(directories); i++)
                r = open_dir(st, directories[i].name, directories[i].mode, directories[i].fd, err);
        if (r < 0)
                return r;
        return lock(st, err);
}

static int read_boot_id(struct image_store *st, struct err *err)
{
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 128, &text, NULL, err);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        snprintf(st->boot_id, sizeof(st->boot_id), "%s", text);
        return 0;
}

static void take_settings(struct image_store *st, const struct image_settings *settings)
{
        st->layers_held = true;
        st->limits = settings->limits;
        st->parallel_layers = settings->parallel_layers ? settings->parallel_layers : 3;
        st->lease_ttl_ns = settings->lease_ttl_ns ? settings->lease_ttl_ns : LEASE_TTL_DEFAULT_NS;
        st->default_platform = settings->default_os_arch ? xstrdup(settings->default_os_arch)
                                                         : NULL;
        st->notice = settings->notice;
        st->notice_arg = settings->notice_arg;
}

int image_store_open(const char *root, struct store *store, const struct image_settings *settings,
                     struct image_store **ret, struct err *err)
{
        static const struct image_settings defaults;
        if (!settings)
                settings = &defaults;
        struct image_store *st = new0(struct image_store);
        st->root = xstrdup(root);
        st->store = store;
        st->root_fd = st->layers_fd = st->staging_fd = st->links_fd = st->snapshots_fd = -1;
        st->lock_fd = -1;
        flights_init(&st->flights);
        pthread_mutex_init(&st->lock, NULL);
        take_settings(st, settings);
        int r = open_directories(st, err);
        if (r == 0)
                r = content_open(st->root_fd, &st->content, err);
        if (r == 0)
                r = read_boot_id(st, err);
        if (r == 0)
                r = registry_pool_create(settings, &st->registry, err);
        if (r == 0) {
                empty_staging(st, "");
                r = image_recover(st, err);
        }
        if (r < 0) {
                image_store_close(st);
                return r;
        }
        if (!settings->no_durability_thread)
                st->durable = durable_create(st);
        *ret = st;
        return 0;
}

void image_store_close(struct image_store *st)
{
        if (!st)
                return;
        durable_destroy(st->durable);
        registry_pool_destroy(st->registry);
        content_close(st->content);
        int *fds[] = { &st->layers_fd, &st->staging_fd,   &st->links_fd,
                       &st->lock_fd,   &st->snapshots_fd, &st->root_fd };
        for (size_t i = 0; i < ELEMENTS(fds); i++)
                close_fd(fds[i]);
        flights_finish(&st->flights);
        pthread_mutex_destroy(&st->lock);
        free(st->default_platform);
        free(st->root);
        free(st);
}
