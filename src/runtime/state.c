#include "runtime/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/cgroup.h"
#include "sys/process.h"

#define RECORD_FILE     "state.json"
#define STATUS_LINK     "status"
#define RECORD_VERSION  1
#define RECORD_SIZE_MAX (OCI_CONFIG_SIZE_MAX + ((size_t)1 << 20))
#define ID_LENGTH_MAX   255 /* it names a directory */
#define ID_CHARACTERS   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-."
#define LOCK_POLL_NS    2000000L

#define RECORD_FIELDS                                                                              \
        JSON_FIELD(struct record, "id", JSON_STRING, id, JSON_REQUIRED),                           \
                JSON_FIELD(struct record, "ociVersion", JSON_STRING, oci_version, JSON_REQUIRED),  \
                JSON_FIELD(struct record, "bundle", JSON_STRING, bundle, JSON_REQUIRED),           \
                JSON_FIELD(struct record, "rootfs", JSON_STRING, rootfs, 0),                       \
                JSON_FIELD(struct record, "created", JSON_STRING, created, 0),                     \
                JSON_FIELD(struct record, "creating", JSON_BOOL, creating, 0),                     \
                JSON_FIELD(struct record, "pid", JSON_INT, pid, JSON_KEEP_EMPTY),                  \
                JSON_FIELD(struct record, "startTime", JSON_UINT, start_time, JSON_KEEP_EMPTY),    \
                JSON_FIELD(struct record, "owner", JSON_UINT, owner, JSON_KEEP_EMPTY),             \
                JSON_FIELD(struct record, "cgroups", JSON_STRV, cgroups, 0),                       \
                JSON_FIELD(struct record, "scope", JSON_STRING, scope, 0),                         \
                JSON_FIELD(struct record, "systemd", JSON_STRING, systemd, 0),                     \
                JSON_FIELD(struct record, "rdtClos", JSON_STRING, rdt_clos, 0),                    \
                JSON_FIELD(struct record, "rdtMonitor", JSON_STRING, rdt_monitor, 0),              \
                JSON_FIELD(struct record, "rdtOwn", JSON_BOOL, rdt_own, 0),                        \
                JSON_FIELD(struct record, "descriptors", JSON_STRV, descriptors, 0),               \
                JSON_FIELD(struct record, "external_descriptors", JSON_STRING,                     \
                           external_descriptors, 0),                                               \
                JSON_FIELD(struct record, "notifyPlace", JSON_STRING, notify_place, 0),            \
                JSON_FIELD(struct record, "annotations", JSON_MAP, annotations, 0)

static const struct json_field brief_fields[] = { RECORD_FIELDS };
static const struct json_shape brief_shape = JSON_SHAPE("state", struct record, brief_fields);

static const struct json_field full_fields[] = {
        RECORD_FIELDS,
        JSON_FIELD_POINTER(struct record, "config", config, &oci_spec_shape, JSON_REQUIRED),
};
static const struct json_shape full_shape = JSON_SHAPE("state", struct record, full_fields);

const char *state_status_name(enum state_status status)
{
        static const char *const names[] = {
                [STATE_CREATING] = "creating", [STATE_CREATED] = "created",
                [STATE_RUNNING] = "running",   [STATE_PAUSED] = "paused",
                [STATE_STOPPED] = "stopped",
        };
        return names[status];
}

struct rdt_group record_rdt(const struct record *record)
{
        return (struct rdt_group){ record->rdt_clos, record->rdt_monitor, record->rdt_own };
}

void record_finish(struct record *record)
{
        json_free(&full_shape, record);
}

int record_parse(const char *text, size_t size, bool with_config, struct record *ret,
                 struct err *err)
{
        return json_decode_text(with_config ? &full_shape : &brief_shape, text, size, ret, err);
}

int state_check_id(const char *id, struct err *err)
{
        size_t length = strlen(id);
        if (length == 0)
                return err_plain(err, EINVAL, "container id cannot be empty");
        size_t fine = strspn(id, ID_CHARACTERS);
        if (id[fine])
                return err_plain(
                        err, EINVAL,
                        "invalid container ID format: %s: invalid character `%c` in the ID", id,
                        id[fine]);
        if (length > ID_LENGTH_MAX || streq(id, ".") || streq(id, ".."))
                return err_plain(err, EINVAL, "invalid container ID format: %s", id);
        return 0;
}

static int open_root(const char *root, bool make, int *ret_fd, struct err *err)
{
        if (make) {
                int r = file_make_dirs(AT_FDCWD, root, 0711, err);
                if (r < 0)
                        return err_wrap(err, "state root");
        }
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open state root '%s'", root);
        *ret_fd = fd;
        return 0;
}

static void fill(const char *root, const char *id, int fd, struct state *to)
{
        *to = (struct state){ .root = xstrdup(root), .id = xstrdup(id), .fd = fd };
}

/* The directory may have been deleted, and made anew, while we waited. */
static bool is_current(struct state *state)
{
        struct stat mine, named;
        auto_free char *path = xasprintf("%s/%s", state->root, state->id);
        return fstat(state->fd, &mine) == 0 && stat(path, &named) == 0 &&
               mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
}

static int take_lock(struct state *state, int64_t deadline, struct err *err)
{
        if (flock(state->fd, LOCK_EX | LOCK_NB) == 0)
                return 1;
        if (errno != EWOULDBLOCK && errno != EINTR)
                return err_set(err, errno, "lock container %s", state->id);
        if (clock_monotonic_ns() > deadline)
                return err_plain(err, EBUSY, "container %s is locked by another runtime process",
                                 state->id);
        struct timespec pause = { .tv_nsec = LOCK_POLL_NS };
        nanosleep(&pause, NULL);
        return 0;
}

int state_lock(struct state *state, struct err *err)
{
        int64_t deadline = clock_monotonic_ns() + STATE_LOCK_WAIT_MS * NS_PER_MS;
        int r;
        while ((r = take_lock(state, deadline, err)) == 0)
                ;
        if (r < 0)
                return r;
        if (!is_current(state))
                return err_plain(err, ENOENT, "container does not exist");
        state->locked = true;
        return 0;
}

void state_unlock(struct state *state)
{
        (void)flock(state->fd, LOCK_UN);
        state->locked = false;
}

static bool has_record(struct state *state)
{
        return faccessat(state->fd, RECORD_FILE, F_OK, 0) == 0;
}

/* The directory becomes ours when we have the lock of one without a record: 1. With a
 * record it is a container. One that is not `fresh` is what a killed create or delete
 * left, and goes; then, as when somebody else removed it meanwhile: 0, to be made anew. */
static int claim(struct state *state, bool fresh, struct err *err)
{
        int64_t deadline = clock_monotonic_ns() + STATE_LOCK_WAIT_MS * NS_PER_MS;
        int r = 0;
        while (r == 0 && !has_record(state))
                r = take_lock(state, deadline, err);
        if (r < 0)
                return r;
        if (!is_current(state))
                return 0;
        if (has_record(state))
                return err_plain(err, EEXIST, "container with given ID already exists");
        if (fresh)
                return 1;
        r = state_remove(state, err);
        return r < 0 ? r : 0;
}

int state_make(const char *root, const char *id, struct state *ret, struct err *err)
{
        int r = state_check_id(id, err);
        if (r < 0)
                return r;
        auto_fd root_fd = -1;
        r = open_root(root, access(root, F_OK) < 0, &root_fd, err);
        while (r == 0) {
                auto_state state = { .fd = -1 };
                bool fresh = mkdirat(root_fd, id, 0711) == 0;
                if (!fresh && errno != EEXIST)
                        return err_set(err, errno, "make state directory '%s/%s'", root, id);
                int fd = openat(root_fd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0 && errno == ENOENT) /* removed meanwhile */
                        continue;
                if (fd < 0)
                        return err_set(err, errno, "open state directory '%s/%s'", root, id);
                fill(root, id, fd, &state);
                r = claim(&state, fresh, err);
                if (r <= 0)
                        continue;
                state.locked = true;
                *ret = state;
                state = (struct state){ .fd = -1 };
        }
        return r < 0 ? r : 0;
}

int state_open(const char *root, const char *id, bool lock, struct state *ret, struct err *err)
{
        int r = state_check_id(id, err);
        if (r < 0)
                return r;
        auto_free char *path = xasprintf("%s/%s", root, id);
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
                if (errno == ENOENT)
                        return err_plain(err, ENOENT, "container does not exist");
                return err_set(err, errno, "open state directory '%s'", path);
        }
        fill(root, id, fd, ret);
        r = lock ? state_lock(ret, err) : 0;
        if (r < 0)
                state_close(ret);
        return r;
}

void state_close(struct state *state)
{
        if (!state->root) /* never opened */
                return;
        close_fd(&state->fd);
        free(state->root);
        free(state->id);
        *state = (struct state){ .fd = -1 };
}

int state_write(struct state *state, const struct record *record, const char *config,
                struct err *err)
{
        auto_free char *head = json_encode_text(&brief_shape, record, false);
        size_t length = strlen(head);
        head[length - 1] = '\0'; /* the closing brace, to put the config in as it is */
        auto_buf text = { 0 };
        buf_puts(&text, head);
        buf_puts(&text, ",\"version\":1,\"config\":");
        buf_puts(&text, config);
        buf_puts(&text, "}\n");
        int r = file_replace(state->fd, RECORD_FILE, text.data, text.size, 0600, false, err);
        if (r == 0 && fstatat(state->fd, RECORD_FILE, &state->written, AT_SYMLINK_NOFOLLOW) < 0)
                r = err_set(err, errno, "stat '%s'", RECORD_FILE);
        return r < 0 ? err_wrap(err, "write state of container %s", state->id) : 0;
}

bool state_is_as_written(struct state *state)
{
        struct stat now;
        const struct stat *then = &state->written;
        return fstatat(state->fd, RECORD_FILE, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
               now.st_ino == then->st_ino && now.st_ctim.tv_sec == then->st_ctim.tv_sec &&
               now.st_ctim.tv_nsec == then->st_ctim.tv_nsec;
}

int state_link_status(struct state *state, struct err *err)
{
        if (symlinkat(RECORD_FILE, state->fd, STATUS_LINK) < 0)
                return err_set(err, errno, "make link '%s'", STATUS_LINK);
        return 0;
}

int state_write_process(struct state *state, pid_t pid, uint64_t start_time, struct err *err)
{
        char text[48];
        snprintf(text, sizeof(text), "%d %llu", (int)pid, (unsigned long long)start_time);
        if (symlinkat(text, state->fd, STATE_PROCESS) < 0)
                return err_set(err, errno, "write process of container %s", state->id);
        return 0;
}

/* Without one, the record stays as it is: its creation has not got that far. */
static int read_process(struct state *state, struct record *record, struct err *err)
{
        char text[48];
        int pid;
        unsigned long long start_time;
        ssize_t n = readlinkat(state->fd, STATE_PROCESS, text, sizeof(text) - 1);
        if (n < 0)
                return errno == ENOENT ? 0 : err_set(err, errno, "read link '%s'", STATE_PROCESS);
        text[n] = '\0';
        if (sscanf(text, "%d %llu", &pid, &start_time) != 2 || pid <= 0)
                return err_plain(err, EINVAL, "link '%s': '%s' is not a process", STATE_PROCESS,
                                 text);
        record->pid = pid;
        record->start_time = start_time;
        record->creating = false;
        return 0;
}

int state_read(struct state *state, bool with_config, struct record *ret, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        int r = file_read(state->fd, RECORD_FILE, RECORD_SIZE_MAX, &text, &size, err);
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "container does not exist");
        struct record record = { 0 };
        if (r == 0)
                r = record_parse(text, size, with_config, &record, err);
        if (r == 0 && record.creating)
                r = read_process(state, &record, err);
        if (r < 0) {
                record_finish(&record);
                err_wrap(err, "state of container %s", state->id);
                return r;
        }
        *ret = record;
        return 0;
}

int state_remove(struct state *state, struct err *err)
{
        auto_free char *path = xasprintf("%s/%s", state->root, state->id);
        /* The usual content by name; anything else by walking. */
        (void)unlinkat(state->fd, RECORD_FILE, 0);
        (void)unlinkat(state->fd, STATE_PROCESS, 0);
        (void)unlinkat(state->fd, STATE_SOCKET, 0);
        if (rmdir(path) == 0 || errno == ENOENT)
                return 0;
        return file_remove_tree(AT_FDCWD, path, err);
}

/* A creation is going on while somebody holds the lock. */
static bool somebody_creates(struct state *state)
{
        if (state->locked)
                return false;
        if (flock(state->fd, LOCK_SH | LOCK_NB) < 0)
                return errno == EWOULDBLOCK;
        flock(state->fd, LOCK_UN);
        return false;
}

int state_status(struct state *state, const struct record *record, enum state_status *ret,
                 struct err *err)
{
        if (record->creating) {
                *ret = somebody_creates(state) ? STATE_CREATING : STATE_STOPPED;
                return 0;
        }
        if (!process_same((pid_t)record->pid, record->start_time)) {
                *ret = STATE_STOPPED;
                return 0;
        }
        if (faccessat(state->fd, STATE_SOCKET, F_OK, 0) == 0) {
                *ret = STATE_CREATED;
                return 0;
        }
        *ret = STATE_RUNNING;
        if (!record->cgroups)
                return 0;
        auto_cgroup cgroup = NULL;
        int r = cgroup_open(record->cgroups, &cgroup, err);
        if (r == 0)
                r = cgroup_is_frozen(cgroup, err);
        if (r > 0)
                *ret = STATE_PAUSED;
        return r < 0 ? r : 0;
}

bool state_has_machine(const char *root, const char *id)
{
        auto_free char *path = xasprintf("%s/%s/%s", root, id, STATE_MACHINE);
        return state_check_id(id, NULL) == 0 && access(path, F_OK) == 0;
}

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

int state_list(const char *root, char ***ret_ids, struct err *err)
{
        auto_dir dir = opendir(root);
        auto_strv ids = NULL;
        if (!dir && errno != ENOENT)
                return err_set(err, errno, "open state root '%s'", root);
        for (struct dirent *entry; dir && (entry = readdir(dir));)
                if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
                    state_check_id(entry->d_name, NULL) == 0)
                        strv_push(&ids, entry->d_name);
        if (ids)
                qsort(ids, strv_length(ids), sizeof(*ids), by_name);
        *ret_ids = take_ptr(ids);
        return 0;
}
