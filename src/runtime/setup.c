#include "runtime/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/sync.h"

#define PASSWD_SIZE_MAX ((size_t)1 << 20)
#define DEFAULT_PATH    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

bool setup_keeps_groups(char *const *annotations)
{
        return json_map_get(annotations, "run.oci.keep_original_groups") != NULL;
}

static int set_groups(const struct setup *setup, struct err *err)
{
        const struct oci_user *user = &setup->process->oci->user;
        if (setup_keeps_groups(setup->state->annotations))
                return 0;
        if (user->additional_gids_length == 0) {
                /* Where setgroups is forbidden there is nothing to get rid of either. */
                char text[8] = "";
                auto_fd fd = openat(setup->proc_fd, "self/setgroups", O_RDONLY | O_CLOEXEC);
                if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && str_starts(text, "deny"))
                        return 0;
        }
        if (setgroups(user->additional_gids_length, user->additional_gids) < 0)
                return err_set(err, errno, "set supplementary groups");
        return 0;
}

static int set_ids(const struct setup *setup, struct err *err)
{
        const struct oci_user *user = &setup->process->oci->user;
        int r = set_groups(setup, err);
        if (r < 0)
                return r;
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
                return err_set(err, errno, "keep capabilities");
        if (setresgid(user->gid, user->gid, user->gid) < 0)
                return err_set(err, errno, "set group %u", user->gid);
        if (setresuid(user->uid, user->uid, user->uid) < 0)
                return err_set(err, errno, "set user %u", user->uid);
        return 0;
}

/* The directory must be below the root we entered: a descriptor of the host that
 * leaked, or /proc/self/fd/N as cwd, would be a way out. */
static int change_directory(const char *cwd, bool is_there, struct err *err)
{
        char path[4096];
        if (!is_there && chdir(cwd) < 0)
                return err_set(err, errno, "chdir to cwd (\"%s\") set in config.json failed", cwd);
        long n = syscall(SYS_getcwd, path, sizeof(path));
        if (n < 0 || path[0] != '/')
                return err_plain(err, EINVAL,
                                 "current working directory is outside of container mount "
                                 "namespace root -- possible container breakout detected");
        return 0;
}

/* Standard descriptors belong to the user of the process, so that it can open
 * /dev/stdout; the null device stays everybody's. */
static void own_stdio(const struct setup *setup)
{
        const struct oci_user *user = &setup->process->oci->user;
        struct stat null, st;
        if (user->uid == 0 || stat("/dev/null", &null) < 0)
                return;
        for (int fd = 0; fd < 3; fd++) {
                if (fstat(fd, &st) < 0 || st.st_uid == user->uid)
                        continue;
                if (S_ISCHR(st.st_mode) && st.st_rdev == null.st_rdev)
                        continue;
                /* A terminal's group is the one that may write to it. */
                (void)!fchown(fd, user->uid, S_ISCHR(st.st_mode) ? st.st_gid : user->gid);
        }
}

static const char *env_get(char *const *env, const char *name)
{
        size_t length = strlen(name);
        for (; env && *env; env++)
                if (strncmp(*env, name, length) == 0 && (*env)[length] == '=')
                        return *env + length + 1;
        return NULL;
}

/* The sixth field of the user's line in the container's /etc/passwd. */
static char *home_of(uid_t uid)
{
        auto_free char *text = NULL;
        if (file_read(AT_FDCWD, "/etc/passwd", PASSWD_SIZE_MAX, &text, NULL, NULL) < 0)
                return xstrdup("/");
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                uint32_t id;
                auto_strv fields = str_split(*line, ':');
                if (strv_length(fields) >= 6 && str_to_u32(fields[2], &id) == 0 && id == uid)
                        return xstrdup(*fields[5] ? fields[5] : "/");
        }
        return xstrdup("/");
}

static char **environment(const struct setup *setup)
{
        char **env = strv_copy(setup->process->oci->env);
        if (!env_get(env, "HOME")) {
                auto_free char *home = home_of(setup->process->oci->user.uid);
                strv_push_take(&env, xasprintf("HOME=%s", home));
        }
        const char *sockets = getenv("LISTEN_FDS");
        if (sockets && setup->preserve_fds) {
                strv_push_take(&env, xasprintf("LISTEN_FDS=%s", sockets));
                strv_push(&env, "LISTEN_PID=1");
        }
        return env;
}

static bool is_program(const char *path, int *ret_errno)
{
        struct stat st;
        if (stat(path, &st) < 0) {
                if (errno != ENOENT && errno != ENOTDIR)
                        *ret_errno = errno;
                return false;
        }
        if (S_ISDIR(st.st_mode)) {
                *ret_errno = EISDIR;
                return false;
        }
        if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0) {
                *ret_errno = errno;
                return false;
        }
        return true;
}

static int find_program(const struct setup *setup, char *const *env, char **ret_path,
                        struct err *err)
{
        const char *name = setup->process->oci->args[0];
        int error = ENOENT;
        if (strchr(name, '/')) {
                if (!is_program(name, &error))
                        return err_set(err, error, "exec: \"%s\"", name);
                *ret_path = xstrdup(name);
                return 0;
        }
        const char *search = env_get(env, "PATH");
        auto_strv directories = str_split(search ? search : DEFAULT_PATH, ':');
        for (char **d = directories; *name && *d; d++) {
                auto_free char *path = xasprintf("%s/%s", **d ? *d : ".", name);
                if (is_program(path, &error)) {
                        *ret_path = take_ptr(path);
                        return 0;
                }
        }
        if (error == EISDIR)
                error = ENOENT;
        return err_set(err, error, "executable file `%s` not found in $PATH", name);
}

static int give_up_privileges(const struct setup *setup, struct err *err)
{
        int r = caps_set(&setup->process->caps, err);
        if (r < 0)
                return err_wrap(err, "unable to apply caps");
        (void)prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
        return 0;
}

/* Tells the runtime that all is done but the program, and waits to be let go:
 * by the runtime itself, then, for a created container, by `start`. */
static int wait_for_start(struct setup *setup, struct err *err)
{
        int r = 0;
        if (setup->wait_fd >= 0) {
                if (setup->listen_fd >= 0)
                        r = sync_send(setup->wait_fd, SYNC_READY, err);
                if (r == 0)
                        r = sync_expect(setup->wait_fd, SYNC_GO, err);
                if (r < 0)
                        return r;
        }
        if (setup->listen_fd < 0)
                return 0;
        int connection;
        r = start_wait(setup->listen_fd, &connection, err);
        if (r < 0)
                return r;
        setup->report_fd = connection;
        return 0;
}

static int drop_and_wait(struct setup *setup, char *const *env, char **ret_path, struct err *err)
{
        const struct oci_process *oci = setup->process->oci;
        bool filtered = setup->filter && setup->filter->program.length > 0;
        /* What only we may enter is entered now; what only the user may, below. */
        bool is_there = chdir(oci->cwd) == 0;
        if (setup->hidden && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return err_set(err, errno, "hide the process");
        int r = caps_drop_bounding(setup->process->caps.bounding, err);
        if (r == 0)
                r = set_ids(setup, err);
        if (r < 0)
                return r;
        if (oci->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_set(err, errno, "set no_new_privs");
        bool early = filtered && !oci->no_new_privileges;
        if (early && oci->user.uid != 0) /* loading the filter needs them */
                r = caps_raise_permitted(err);
        if (r == 0 && !early)
                r = give_up_privileges(setup, err);
        if (r == 0)
                r = change_directory(oci->cwd, is_there, err);
        if (r == 0 && oci->args)
                r = find_program(setup, env, ret_path, err);
        if (r == 0)
                r = wait_for_start(setup, err);
        if (r == 0 && !oci->args)
                r = err_plain(err, EINVAL, "config.json has no \"process\" to start");
        if (r == 0 && setup->linux_)
                log_debug("init: closing the pipe to signal completion, by executing %s",
                          *ret_path);
        else if (r == 0)
                log_debug("setns_init: about to exec %s", *ret_path);
        if (r == 0 && close_range(3 + setup->preserve_fds, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
                r = err_set(err, errno, "close descriptors");
        if (r == 0 && setup->pass_fd >= 0 && fcntl(setup->pass_fd, F_SETFD, 0) < 0)
                r = err_set(err, errno, "pass descriptor %d on", setup->pass_fd);
        if (r == 0 && filtered)
                r = listener_load(setup, err);
        if (r == 0 && early)
                r = give_up_privileges(setup, err);
        /* With no more rights than the program will have. */
        if (r == 0)
                r = hooks_run(&setup->start_hooks, setup->state, err);
        return r;
}

int setup_and_exec(struct setup *setup, struct err *err)
{
        const struct oci_process *oci = setup->process->oci;
        int r = attributes_apply(setup, err);
        if (r < 0)
                return r;
        own_stdio(setup);
        auto_strv env = environment(setup);
        auto_free char *path = NULL;
        r = drop_and_wait(setup, env, &path, err);
        if (r < 0)
                return r;
        execve(path, oci->args, env);
        return err_set(err, errno, "exec %s", path);
}
