/* state list ps events */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "codec/json.h"
#include "runtime/cli.h"
#include "runtime/container.h"
#include "runtime/report.h"
#include "sys/cgroup.h"
#include "sys/process.h"
#include "sys/spawn.h"

#define PASSWD_SIZE_MAX ((size_t)4 << 20)
#define PS_SIZE_MAX     ((size_t)16 << 20)
#define OOM_RECHECK_MS  10
#define OOM_RECHECKS    100

/* The name of a uid, from /etc/passwd alone: a static program has no name
 * service. */
static char *user_name(uint32_t uid)
{
        auto_free char *text = NULL;
        if (file_read(AT_FDCWD, "/etc/passwd", PASSWD_SIZE_MAX, &text, NULL, NULL) < 0)
                return xasprintf("#%u", uid);
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                uint32_t id;
                auto_strv fields = str_split(*line, ':');
                if (strv_length(fields) >= 3 && str_to_u32(fields[2], &id) == 0 && id == uid)
                        return xstrdup(fields[0]);
        }
        return xasprintf("#%u", uid);
}

static struct json_object *state_object(const struct record *record, enum state_status status,
                                        bool with_version)
{
        struct json_object *object = json_object_new_object();
        struct json_object *annotations = NULL;
        auto_free char *owner = user_name(record->owner);
        if (with_version)
                json_object_object_add(object, "ociVersion",
                                       json_object_new_string(OCI_RUNTIME_SPEC_VERSION));
        json_object_object_add(object, "id", json_object_new_string(record->id));
        json_object_object_add(object, "pid",
                               json_object_new_int64(status == STATE_STOPPED ? 0 : record->pid));
        json_object_object_add(object, "status", json_object_new_string(state_status_name(status)));
        json_object_object_add(object, "bundle", json_object_new_string(record->bundle));
        json_object_object_add(object, "rootfs",
                               json_object_new_string(record->rootfs ? record->rootfs : ""));
        json_object_object_add(object, "created",
                               json_object_new_string(record->created ? record->created : ""));
        for (char **entry = record->annotations; entry && *entry; entry++) {
                const char *value;
                auto_free char *key = json_map_split(*entry, &value);
                if (!annotations)
                        annotations = json_object_new_object();
                json_object_object_add(annotations, key, json_object_new_string(value));
        }
        if (annotations)
                json_object_object_add(object, "annotations", annotations);
        json_object_object_add(object, "owner", json_object_new_string(owner));
        return object;
}

int cli_state(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option none[] = { { NULL, 0, NULL, 0 } };
        auto_record record = { 0 };
        enum state_status status;
        (void)ret_code;
        if (cli_next(argc, argv, "+:", none, err) != -1)
                return -EINVAL;
        int r = cli_expect(argc, argv, 1, false, err);
        if (r == 0)
                r = container_load(cli->root, argv[optind], false, &record, &status, err);
        /* crun knows a container from when it is created on, and programs wait for that. */
        if (r == 0 && status == STATE_CREATING && cli->dialect == CLI_CRUN)
                r = err_plain(err, ENOENT, "container does not exist");
        if (r < 0)
                return r;
        auto_json object = state_object(&record, status, true);
        auto_free char *text = json_text(object, true);
        puts(text);
        return 0;
}

/* One line a container; widths are the widest cell's. */
struct list_row {
        char *cells[6];
};

static void print_table(const struct list_row *rows, size_t length)
{
        size_t widths[6] = { 0 };
        for (size_t i = 0; i < length; i++)
                for (size_t c = 0; c < 6; c++)
                        if (strlen(rows[i].cells[c]) > widths[c])
                                widths[c] = strlen(rows[i].cells[c]);
        for (size_t i = 0; i < length; i++) {
                for (size_t c = 0; c < 5; c++)
                        printf("%-*s", (int)(widths[c] < 12 ? 12 : widths[c] + 1),
                               rows[i].cells[c]);
                printf("%s\n", rows[i].cells[5]);
        }
}

static struct list_row list_row(const struct record *record, enum state_status status)
{
        struct list_row row = {
                { xstrdup(record->id),
                  xasprintf("%lld", (long long)(status == STATE_STOPPED ? 0 : record->pid)),
                  xstrdup(state_status_name(status)), xstrdup(record->bundle),
                  xstrdup(record->created ? record->created : ""), user_name(record->owner) }
        };
        return row;
}

enum list_format { LIST_TABLE, LIST_JSON, LIST_QUIET };

static int print_list(const char *root, char *const *ids, enum list_format format)
{
        auto_json array = json_object_new_array();
        size_t length = 1;
        struct list_row *rows = xcalloc(strv_length(ids) + 1, sizeof(*rows));
        rows[0] = (struct list_row){ { xstrdup("ID"), xstrdup("PID"), xstrdup("STATUS"),
                                       xstrdup("BUNDLE"), xstrdup("CREATED"), xstrdup("OWNER") } };
        for (; ids && *ids; ids++) {
                auto_record record = { 0 };
                enum state_status status;
                struct err err = { 0 };
                /* One that cannot be read must not hide the others. */
                int r = container_load(root, *ids, false, &record, &status, &err);
                if (r < 0) {
                        if (r != -ENOENT)
                                fprintf(stderr, "load container %s: %s\n", *ids, err_text(&err));
                        continue;
                }
                if (format == LIST_QUIET)
                        puts(record.id);
                else if (format == LIST_JSON)
                        json_object_array_add(array, state_object(&record, status, true));
                else
                        rows[length++] = list_row(&record, status);
        }
        if (format == LIST_TABLE)
                print_table(rows, length);
        if (format == LIST_JSON) {
                auto_free char *text = json_text(array, false);
                printf("%s", text);
        }
        for (size_t i = 0; i < length; i++)
                for (size_t c = 0; c < 6; c++)
                        free(rows[i].cells[c]);
        free(rows);
        return 0;
}

int cli_list(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option longs[] = { { "quiet", no_argument, NULL, 'q' },
                                               { "format", required_argument, NULL, 'f' },
                                               { NULL, 0, NULL, 0 } };
        enum list_format format = LIST_TABLE;
        int flag;
        (void)ret_code;
        while ((flag = cli_next(argc, argv, "+:qf:", longs, err)) != -1) {
                if (flag == 'q')
                        format = LIST_QUIET;
                else if (flag == 'f' && streq(optarg, "json"))
                        format = LIST_JSON;
                else if (flag == 'f' && !streq(optarg, "table"))
                        return err_plain(err, EINVAL, "invalid format option");
                else if (flag == '?')
                        return -EINVAL;
        }
        int r = cli_expect(argc, argv, 0, false, err);
        auto_strv ids = NULL;
        if (r == 0)
                r = state_list(cli->root, &ids, err);
        return r < 0 ? r : print_list(cli->root, ids, format);
}

static int load_cgroup(const struct cli *cli, const char *id, struct cgroup **ret,
                       enum state_status *status, struct err *err)
{
        auto_record record = { 0 };
        int r = container_load(cli->root, id, false, &record, status, err);
        if (r < 0)
                return r;
        if (!record.cgroups)
                return err_plain(err, EOPNOTSUPP, "container %s has no cgroup", id);
        return cgroup_open(record.cgroups, ret, err);
}

/* Runs ps(1) and keeps the lines whose PID column is one of ours. */
static int print_ps(const pid_t *pids, size_t length, char *const *options, struct err *err)
{
        int pipe_fds[2];
        if (pipe2(pipe_fds, O_CLOEXEC) < 0)
                return err_set(err, errno, "pipe");
        auto_fd read_end = pipe_fds[0], write_end = pipe_fds[1];
        auto_strv argv = NULL;
        strv_push(&argv, "ps");
        if (!options || !*options)
                strv_push(&argv, "-ef");
        for (; options && *options; options++)
                strv_push(&argv, *options);
        struct spawn_fd fds[] = { { write_end, 1 }, { 2, 2 } };
        struct spawn spawn = { .path = "ps", .argv = argv, .fds = fds, .fds_length = 2 };
        pid_t pid;
        int r = spawn_process(&spawn, &pid, NULL, err);
        if (r < 0)
                return r;
        close_fd(&write_end);
        auto_free char *text = NULL;
        int status;
        r = file_read_fd(read_end, PS_SIZE_MAX, &text, NULL, err);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (r < 0)
                return r;
        if (process_exit_code(status) != 0)
                return err_plain(err, EIO, "ps failed");
        return report_filter_ps(text, pids, length, err);
}

int cli_ps(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option longs[] = { { "format", required_argument, NULL, 'f' },
                                               { NULL, 0, NULL, 0 } };
        bool json = false;
        int flag;
        auto_cgroup cgroup = NULL;
        auto_free pid_t *pids = NULL;
        size_t length;
        enum state_status status;
        (void)ret_code;
        while ((flag = cli_next(argc, argv, "+:f:", longs, err)) != -1) {
                if (flag == 'f' && streq(optarg, "json"))
                        json = true;
                else if (flag == 'f' && !streq(optarg, "table"))
                        return err_plain(err, EINVAL, "invalid format option");
                else if (flag == '?')
                        return -EINVAL;
        }
        int r = cli_expect(argc, argv, 1, true, err);
        /* Engines ask for JSON, and look for those ids on the host. */
        if (r == 0 && !json && state_has_machine(cli->root, argv[optind]))
                return cli->machines->ps(cli->root, argv[optind], argv + optind + 1, err);
        if (r == 0)
                r = load_cgroup(cli, argv[optind], &cgroup, &status, err);
        if (r == 0)
                r = cgroup_members(cgroup, &pids, &length, err);
        if (r < 0)
                return r;
        if (!json)
                return print_ps(pids, length, argv + optind + 1, err);
        printf("[");
        for (size_t i = 0; i < length; i++)
                printf("%s%d", i ? "," : "", (int)pids[i]);
        printf("]\n");
        return 0;
}

static int print_stats(const char *id, struct cgroup *cgroup, struct err *err)
{
        struct cgroup_stats stats;
        int r = cgroup_stats(cgroup, &stats, err);
        if (r < 0)
                return r;
        auto_free char *text = report_stats(id, &stats);
        cgroup_stats_finish(&stats);
        puts(text);
        return fflush(stdout) == 0 ? 0 : err_set(err, errno, "write standard output");
}

/* "5s", "500ms", "1m", or seconds. */
static int parse_interval(const char *text, int *ret_ms)
{
        static const struct {
                const char *suffix;
                unsigned ms;
        } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "", 1000 } };
        for (size_t i = 0; i < ELEMENTS(units); i++) {
                if (!str_ends(text, units[i].suffix))
                        continue;
                uint32_t number;
                auto_free char *digits = xstrndup(text, strlen(text) - strlen(units[i].suffix));
                if (str_to_u32(digits, &number) < 0 || number == 0 ||
                    number > INT32_MAX / units[i].ms)
                        return -EINVAL;
                *ret_ms = (int)(number * units[i].ms);
                return 0;
        }
        return -EINVAL;
}

/* The OOM notification of version 1 comes before the kill is counted, so the
 * counter is looked at again for a while. */
struct oom_watch {
        int fd;
        uint64_t count;
        int rechecks;
};

static void check_oom(struct oom_watch *watch, const char *id, struct cgroup *cgroup)
{
        uint64_t now;
        if (watch->rechecks > 0)
                watch->rechecks--;
        if (cgroup_oom_kills(cgroup, &now, NULL) < 0 || now <= watch->count)
                return;
        watch->count = now;
        watch->rechecks = 0;
        printf("{\"type\":\"oom\",\"id\":\"%s\"}\n", id);
        fflush(stdout);
}

static int stream_events(const struct cli *cli, const char *id, int interval_ms,
                         struct cgroup *cgroup, struct err *err)
{
        auto_record record = { 0 };
        enum state_status status;
        auto_fd pidfd = -1;
        int r = container_load(cli->root, id, false, &record, &status, err);
        if (r == 0)
                r = process_open((pid_t)record.pid, record.start_time, &pidfd, err);
        if (r < 0)
                return r;
        struct oom_watch watch = { .fd = -1 };
        (void)cgroup_oom_watch(cgroup, &watch.fd, NULL);
        (void)cgroup_oom_kills(cgroup, &watch.count, NULL);
        auto_fd oom = watch.fd;
        int64_t next = clock_monotonic_ns() + interval_ms * NS_PER_MS;
        for (;;) {
                struct pollfd entries[] = { { .fd = pidfd, .events = POLLIN },
                                            { .fd = oom, .events = POLLIN | POLLPRI } };
                int64_t left = (next - clock_monotonic_ns()) / NS_PER_MS;
                if (watch.rechecks > 0 && left > OOM_RECHECK_MS)
                        left = OOM_RECHECK_MS;
                if (poll(entries, 2, left > 0 ? (int)left : 0) < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (entries[1].revents) {
                        char drained[4096];
                        (void)!read(oom, drained, sizeof(drained));
                        watch.rechecks = OOM_RECHECKS;
                }
                check_oom(&watch, id, cgroup);
                if (entries[0].revents)
                        return 0;
                if (clock_monotonic_ns() < next)
                        continue;
                r = print_stats(id, cgroup, err);
                if (r < 0)
                        return r;
                next += interval_ms * NS_PER_MS;
        }
}

int cli_events(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        enum { FLAG_STATS = 1000, FLAG_INTERVAL };
        static const struct option longs[] = { { "stats", no_argument, NULL, FLAG_STATS },
                                               { "interval", required_argument, NULL,
                                                 FLAG_INTERVAL },
                                               { NULL, 0, NULL, 0 } };
        bool once = false;
        int flag, interval_ms = 5000;
        auto_cgroup cgroup = NULL;
        enum state_status status;
        (void)ret_code;
        while ((flag = cli_next(argc, argv, ":", longs, err)) != -1) {
                if (flag == FLAG_STATS)
                        once = true;
                else if (flag == FLAG_INTERVAL && parse_interval(optarg, &interval_ms) < 0)
                        return err_plain(err, EINVAL, "duration interval must be greater than 0");
                else if (flag == '?')
                        return -EINVAL;
        }
        int r = cli_expect(argc, argv, 1, false, err);
        if (r == 0)
                r = load_cgroup(cli, argv[optind], &cgroup, &status, err);
        if (r < 0)
                return r;
        if (status == STATE_STOPPED)
                return err_plain(err, ESRCH, "container with id %s is not running", argv[optind]);
        return once ? print_stats(argv[optind], cgroup, err)
                    : stream_events(cli, argv[optind], interval_ms, cgroup, err);
}
