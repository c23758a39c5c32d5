/* isled, the daemon: opens what it stands on from the ground up (lock, store,
 * images, engine, API, sockets), tells systemd, and runs the loop.
 *
 * It may be stopped, killed and started again at any time: instances are held by
 * their monitors and go on.
 *
 * Signals: TERM and INT end it, HUP reads the configuration again (log settings
 * apply at once, for others it says that a restart is needed).
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "api/api.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/str.h"
#include "bin/isled_settings.h"
#include "engine/engine.h"
#include "http/listen.h"
#include "http/server.h"
#include "image/image.h"
#include "loop/loop.h"
#include "loop/workers.h"
#include "store/store.h"

#define WORKER_THREADS 8
#define DRAIN_NS       (5 * NS_PER_S)
#define COLLECT_NS     (3600 * NS_PER_S) /* between looks for expired garbage */
#define ID_KEY         "daemon/id"

struct daemon {
        struct isled_settings settings;
        int argc;
        char **argv;
        int lock_fd;
        char *id;
        struct loop *loop;
        struct loop_source *signals[3];
        struct loop_source *collection;
        struct workers *workers;
        struct store *store;
        struct image_store *images;
        struct engine *engine;
        struct api *api;
        struct http_server *server;
        bool activated; /* sockets came from systemd */
};

/* --- the state directory --- */

/* Adds the way out to the failures that have a well-known one. */
static int explain(const char *root, int r, struct err *err)
{
        if (r == -EROFS)
                return err_plain(err, EROFS,
                                 "state directory %s is read-only; mount it writable, or choose "
                                 "another with --root",
                                 root);
        if (r == -ENOSPC || r == -EDQUOT)
                return err_plain(err, -r,
                                 "no space left for the state directory %s; free some, or choose "
                                 "another with --root",
                                 root);
        if (r == -EACCES || r == -EPERM)
                return err_wrap(err, "isled must run as root, or own %s", root);
        return r;
}

static int lock_report_holder(int fd, const char *root, struct err *err)
{
        char pid[32] = "";
        ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? n : 0] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return err_plain(err, EBUSY,
                         "another isled uses %s (pid %s); stop it, or choose another directory "
                         "with --root",
                         root, *pid ? pid : "unknown");
}

/* One isled per state directory. The lock is the process's: a child that was made just before
 * isled was killed, and has not come to its exec yet, does not keep it. It lasts as long as no
 * descriptor of the file is closed. */
static int root_lock(const char *root, int *ret_fd, struct err *err)
{
        int r = file_make_dirs(AT_FDCWD, root, 0711, err);
        if (r < 0)
                return explain(root, r, err);
        auto_free char *path = xasprintf("%s/lock", root);
        auto_fd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return explain(root, err_set(err, errno, "open %s", path), err);
        struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        if (fcntl(fd, F_SETLK, &whole) < 0) {
                if (errno == EAGAIN || errno == EACCES)
                        return lock_report_holder(fd, root, err);
                return err_set(err, errno, "lock %s", path);
        }
        char pid[32];
        int length = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
        if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)length, 0) != length)
                return explain(root, err_set(err, errno ? errno : ENOSPC, "write %s", path), err);
        *ret_fd = take_fd(fd);
        return 0;
}

/* The id of this installation, drawn at its first start. */
static int load_id(struct store *store, char **ret, struct err *err)
{
        struct store_value value = { 0 };
        int r = store_get(store, ID_KEY, &value, err);
        if (r >= 0) {
                *ret = xstrdup(value.data);
                store_value_finish(&value);
                return 0;
        }
        if (r != -ENOENT)
                return r;
        char hex[33];
        rand_hex(hex, 32);
        auto_free char *id = xasprintf("%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12,
                                       hex + 16, hex + 20);
        r = store_put(store, ID_KEY, id, strlen(id), err);
        if (r >= 0)
                *ret = take_ptr(id);
        return r;
}

/* --- the parts --- */

static void notice(void *arg, const char *text)
{
        (void)arg;
        log_warning("%s", text);
}

static int open_state(struct daemon *d, struct err *err)
{
        const struct isled_settings *s = &d->settings;
        auto_free char *database = xasprintf("%s/state.db", s->root_dir);
        int r = root_lock(s->root_dir, &d->lock_fd, err);
        if (r < 0)
                return r;
        r = file_make_dirs(AT_FDCWD, s->run_dir, 0755, err);
        if (r < 0)
                return err_wrap(err, "runtime directory %s", s->run_dir);
        r = store_open_sqlite(database, &d->store, err);
        if (r >= 0)
                r = load_id(d->store, &d->id, err);
        if (r < 0)
                return explain(s->root_dir, r, err);
        struct image_settings images = {
                .insecure_registries = s->insecure_registries,
                .registry_ca_file = s->registry_ca,
                .notice = notice,
        };
        r = image_store_open(s->root_dir, d->store, &images, &d->images, err);
        return r < 0 ? explain(s->root_dir, r, err) : 0;
}

static int open_engine(struct daemon *d, struct err *err)
{
        const struct isled_settings *s = &d->settings;
        struct engine_settings settings = {
                .root_dir = s->root_dir,
                .run_dir = s->run_dir,
                .runtime_path = s->runtime_path,
                .monitor_path = s->monitor_path,
                .init_path = s->init_path,
                .cgroup_parent = s->cgroup_parent,
                .default_runtime = s->default_runtime,
                .vm_rootfs = s->vm_rootfs,
                .vm_cpu_model = s->vm_cpu_model,
                .userns_remap = s->userns_remap,
        };
        int r = engine_create(d->loop, d->workers, d->store, d->images, &settings, &d->engine, err);
        if (r < 0)
                return explain(s->root_dir, r, err);
        struct api parts = {
                .loop = d->loop,
                .workers = d->workers,
                .images = d->images,
                .engine = d->engine,
                .settings = { .root_dir = s->root_dir,
                              .run_dir = s->run_dir,
                              .id = d->id,
                              .insecure_registries = s->insecure_registries },
        };
        return api_create(&parts, &d->api, err);
}

/* --- garbage --- */

/* What interrupted pulls left goes when their leases have run out. */
static void collect(void *arg)
{
        struct daemon *d = arg;
        struct err err = { 0 };
        if (image_gc(d->images, NULL, &err) < 0)
                log_warning("%s", err_text(&err));
}

static void collect_again(void *arg)
{
        struct daemon *d = arg;
        loop_timer_arm(d->collection, COLLECT_NS);
}

static void collection_due(void *arg)
{
        struct daemon *d = arg;
        workers_submit(d->workers, collect, collect_again, d);
}

/* --- sockets --- */

/* The group that may use the socket, beside root. */
static gid_t socket_group(void)
{
        static const char *const names[] = { "isle", "docker" };
        for (size_t i = 0; i < ELEMENTS(names); i++) {
                const struct group *group = getgrnam(names[i]);
                if (group)
                        return group->gr_gid;
        }
        return (gid_t)-1;
}

static int listen_on(struct daemon *d, const char *host, struct err *err)
{
        int fd = -1;
        int r = http_listen(host, socket_group(), &fd, err);
        if (r < 0)
                return r == -EADDRINUSE ? err_wrap(err,
                                                   "%s is in use; stop what serves it, or choose "
                                                   "another with --host",
                                                   host)
                                        : err_wrap(err, "listen on %s", host);
        if (str_starts(host, "tcp://"))
                log_warning("%s is served without TLS: whoever reaches it is root here", host);
        r = http_server_listen(d->server, fd, err);
        if (r >= 0)
                log_info("serving the Docker API on %s", host);
        return r;
}

static int listen_activated(struct daemon *d, int count, struct err *err)
{
        for (int i = 0; i < count; i++) {
                int fd = SD_LISTEN_FDS_START + i;
                int r = sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1);
                if (r <= 0)
                        return err_plain(err, EINVAL,
                                         "descriptor %d from systemd is not a listening stream "
                                         "socket; check isled.socket",
                                         fd);
                int flags = fcntl(fd, F_GETFL);
                if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                        return err_set(err, errno, "prepare descriptor %d from systemd", fd);
                r = http_server_listen(d->server, fd, err);
                if (r < 0)
                        return r;
                d->activated = true;
        }
        if (count > 0)
                log_info("serving the Docker API on %d socket%s from systemd", count,
                         count == 1 ? "" : "s");
        return 0;
}

static int serve(struct daemon *d, struct err *err)
{
        size_t length;
        const struct http_route *routes = api_routes(d->api, &length);
        int r = http_server_create(d->loop, routes, length, d->api, &d->server, err);
        if (r < 0)
                return r;
        int count = sd_listen_fds(1);
        r = listen_activated(d, count > 0 ? count : 0, err);
        if (r >= 0 && !d->settings.hosts && !d->activated) {
                auto_free char *host = xasprintf("unix://%s/docker.sock", d->settings.run_dir);
                strv_push(&d->settings.hosts, host);
        }
        for (char **host = d->settings.hosts; r >= 0 && host && *host; host++)
                r = listen_on(d, *host, err);
        return r;
}

/* --- signals --- */

static void say_if_changed(const char *name, const char *now, const char *wanted)
{
        if (!streq(now, wanted))
                log_warning("%s changed in the configuration; restart isled for it", name);
}

static void reload(struct daemon *d)
{
        struct isled_settings fresh = { 0 };
        struct err err = { 0 };
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
                   (long long)(clock_monotonic_ns() / NS_PER_US));
        if (isled_settings_load(d->argc, d->argv, &fresh, &err) < 0) {
                log_error("configuration not reloaded: %s", err_text(&err));
        } else {
                struct log_settings log = isled_log_settings(&fresh);
                log_configure(&log);
                auto_free char *before = strv_join(d->settings.insecure_registries, " ");
                auto_free char *after = strv_join(fresh.insecure_registries, " ");
                say_if_changed("root", d->settings.root_dir, fresh.root_dir);
                say_if_changed("run", d->settings.run_dir, fresh.run_dir);
                say_if_changed("registry-ca", d->settings.registry_ca, fresh.registry_ca);
                say_if_changed("insecure-registries", before, after);
                say_if_changed("runtime", d->settings.runtime_path, fresh.runtime_path);
                say_if_changed("monitor", d->settings.monitor_path, fresh.monitor_path);
                log_info("configuration reloaded");
                isled_settings_finish(&fresh);
        }
        sd_notify(0, "READY=1");
}

static void signalled(void *arg, int signo)
{
        struct daemon *d = arg;
        if (signo == SIGHUP) {
                reload(d);
                return;
        }
        log_info("%s: stopping; instances keep running", signo == SIGINT ? "SIGINT" : "SIGTERM");
        sd_notify(0, "STOPPING=1");
        loop_exit(d->loop, 0);
}

static int watch_signals(struct daemon *d, struct err *err)
{
        static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
        for (size_t i = 0; i < ELEMENTS(signals); i++) {
                int r = loop_signal(d->loop, signals[i], signalled, d, &d->signals[i], err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- the whole --- */

/* Descriptors for many instances, little memory kept when idle. Failures do not matter. */
static void prepare_process(void)
{
        struct rlimit files;
        if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
                files.rlim_cur = files.rlim_max;
                setrlimit(RLIMIT_NOFILE, &files);
        }
        signal(SIGPIPE, SIG_IGN);
        umask(0022);
        mallopt(M_ARENA_MAX, 2);
        mallopt(M_MMAP_THRESHOLD, 128 << 10);
        mallopt(M_TRIM_THRESHOLD, 128 << 10);
}

static int daemon_start(struct daemon *d, struct err *err)
{
        int r = loop_create(&d->loop, err);
        if (r >= 0)
                r = watch_signals(d, err);
        if (r >= 0)
                r = workers_create(d->loop, WORKER_THREADS, &d->workers, err);
        if (r >= 0)
                r = open_state(d, err);
        if (r >= 0)
                r = open_engine(d, err);
        if (r >= 0)
                r = loop_timer(d->loop, collection_due, d, &d->collection, err);
        if (r >= 0) {
                loop_timer_arm(d->collection, COLLECT_NS);
                r = serve(d, err);
        }
        return r;
}

static bool is_busy(const struct daemon *d)
{
        return (d->workers && workers_pending(d->workers) > 0) ||
               (d->engine && !engine_is_settled(d->engine));
}

/* Waits for the threads, and for what has ended to be cleaned up; what is stuck
 * must not keep the daemon from ending. */
static void wait_for_threads(struct daemon *d)
{
        bool drained = !d->api || api_drain(d->api);
        int64_t deadline_ns = clock_monotonic_ns() + DRAIN_NS;
        while (drained && is_busy(d)) {
                int64_t left_ns = deadline_ns - clock_monotonic_ns();
                if (left_ns <= 0)
                        drained = false;
                else
                        loop_step(d->loop, left_ns < NS_PER_S / 10 ? left_ns : NS_PER_S / 10);
        }
        if (!drained) {
                log_warning("work of stopped requests is stuck; ending without it");
                _exit(0);
        }
}

static void unlink_sockets(const struct daemon *d)
{
        for (char **host = d->settings.hosts; host && *host; host++) {
                const char *path = str_after(*host, "unix://");
                if (path)
                        unlink(path);
        }
}

static void daemon_stop(struct daemon *d, bool served)
{
        http_server_destroy(d->server);
        if (served)
                unlink_sockets(d);
        wait_for_threads(d);
        workers_destroy(d->workers);
        api_destroy(d->api);
        engine_destroy(d->engine);
        image_store_close(d->images);
        store_close(d->store);
        loop_source_destroy(d->collection);
        for (size_t i = 0; i < ELEMENTS(d->signals); i++)
                loop_source_destroy(d->signals[i]);
        loop_destroy(d->loop);
        close_fd(&d->lock_fd);
        free(d->id);
        isled_settings_finish(&d->settings);
}

static int run(struct daemon *d)
{
        struct err err = { 0 };
        int r = daemon_start(d, &err);
        if (r < 0) {
                log_error("%s", err_text(&err));
                sd_notifyf(0, "STATUS=%s\nERRNO=%d", err_text(&err), -r);
        } else {
                malloc_trim(0);
                log_info("isled " ISLE_VERSION " is ready");
                sd_notify(0, "READY=1");
                loop_run(d->loop);
        }
        daemon_stop(d, r >= 0);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
        struct daemon d = { .argc = argc, .argv = argv, .lock_fd = -1 };
        struct err err = { 0 };
        if (isled_settings_load(argc, argv, &d.settings, &err) < 0) {
                fprintf(stderr, "isled: %s\n", err_text(&err));
                return 2;
        }
        if (d.settings.show_help || d.settings.show_version) {
                fputs(d.settings.show_help ? isled_usage : "isled " ISLE_VERSION "\n", stdout);
                isled_settings_finish(&d.settings);
                return 0;
        }
        struct log_settings log = isled_log_settings(&d.settings);
        log_configure(&log);
        prepare_process();
        return run(&d);
}
