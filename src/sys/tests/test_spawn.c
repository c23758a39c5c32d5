#include "sys/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"

/* Runs a shell script with descriptor 1 on a pipe, gives what it printed. */
static char *output_of(struct spawn *spawn, int *ret_status)
{
        int fds[2];
        assert_int_equal(pipe(fds), 0); /* not CLOEXEC: the child must not get it */
        struct spawn_fd map[SPAWN_FDS_LIMIT];
        size_t n = 0;
        for (; n < spawn->fds_length; n++)
                map[n] = spawn->fds[n];
        map[n++] = (struct spawn_fd){ fds[1], 1 };
        spawn->fds = map;
        spawn->fds_length = n;
        pid_t pid;
        struct err err = { 0 };
        if (spawn_process(spawn, &pid, NULL, &err) < 0)
                fail_msg("%s", err.text);
        close(fds[1]);
        char *text;
        assert_int_equal(file_read_fd(fds[0], 1 << 20, &text, NULL, NULL), 0);
        close(fds[0]);
        assert_int_equal(waitpid(pid, ret_status, 0), pid);
        return text;
}

static void only_named_descriptors_are_passed(void **state)
{
        (void)state;
        int leak = open("/dev/zero", O_RDONLY); /* neither this nor the pipe's ends */
        char *argv[] = { "ls", "/proc/self/fd", NULL };
        struct spawn spawn = { .path = "ls", .argv = argv };
        int status;
        auto_free char *text = output_of(&spawn, &status);
        assert_string_equal(text, "0\n1\n2\n3\n"); /* 3 is the directory that ls reads */
        close(leak);
}

static void targets_and_sources_may_overlap(void **state)
{
        (void)state;
        int a = open("/dev/null", O_RDONLY), b = open("/dev/zero", O_RDONLY);
        assert_int_equal(dup2(a, 10), 10);
        assert_int_equal(dup2(b, 11), 11);
        struct spawn_fd map[] = { { 10, 11 }, { 11, 10 } };
        char *argv[] = { "sh", "-c", "readlink /proc/self/fd/10; readlink /proc/self/fd/11", NULL };
        struct spawn spawn = { .path = "sh", .argv = argv, .fds = map, .fds_length = 2 };
        int status;
        auto_free char *text = output_of(&spawn, &status);
        assert_string_equal(text, "/dev/zero\n/dev/null\n");
        close(a);
        close(b);
        close(10);
        close(11);
}

static void a_failed_exec_is_an_error(void **state)
{
        (void)state;
        char *argv[] = { "x", NULL };
        struct spawn spawn = { .path = "/no/such/program", .argv = argv };
        struct err err = { 0 };
        pid_t pid = 77;
        assert_int_equal(spawn_process(&spawn, &pid, NULL, &err), -ENOENT);
        assert_non_null(strstr(err.text, "/no/such/program"));
        assert_int_equal(pid, 77);
        spawn.path = "no-such-program";
        assert_int_equal(spawn_process(&spawn, &pid, NULL, &err), -ENOENT);
        assert_non_null(strstr(err.text, "not in PATH"));
        spawn.path = "/bin/true";
        spawn.cwd = "/no/such/directory";
        assert_int_equal(spawn_process(&spawn, &pid, NULL, &err), -ENOENT);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void environment_and_directory(void **state)
{
        (void)state;
        char *argv[] = { "sh", "-c", "pwd; echo $A; echo $HOME", NULL };
        char *envp[] = { "A=b", "PATH=/bin:/usr/bin", NULL };
        struct spawn spawn = { .path = "/bin/sh", .argv = argv, .envp = envp, .cwd = "/usr" };
        int status;
        auto_free char *text = output_of(&spawn, &status);
        assert_string_equal(text, "/usr\nb\n\n");
}

/* A signal that the C library keeps for itself, as a parent may have left it. */
static void set_libc_signal(void (*handler)(int))
{
        const unsigned long action[4] = { (unsigned long)handler };
        assert_int_equal(syscall(SYS_rt_sigaction, 33, action, NULL, 8), 0);
}

static void signals_start_at_their_defaults(void **state)
{
        (void)state;
        signal(SIGUSR1, SIG_IGN);
        set_libc_signal(SIG_IGN);
        sigset_t set, saved;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, &saved);
        char *argv[] = { "grep", "-E", "Sig(Blk|Ign)", "/proc/self/status", NULL };
        struct spawn spawn = { .path = "grep", .argv = argv };
        int status;
        auto_free char *text = output_of(&spawn, &status);
        assert_string_equal(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
        sigset_t now;
        sigprocmask(SIG_SETMASK, &saved, &now);
        assert_true(sigismember(&now, SIGUSR2));
        signal(SIGUSR1, SIG_DFL);
        set_libc_signal(SIG_DFL);
}

static void sessions_and_pidfds(void **state)
{
        (void)state;
        char *argv[] = { "sleep", "100", NULL };
        struct spawn spawn = {
                .path = "sleep", .argv = argv, .new_session = true, .death_signal = SIGKILL
        };
        pid_t pid;
        auto_fd pidfd = -1;
        assert_int_equal(spawn_process(&spawn, &pid, &pidfd, NULL), 0);
        assert_int_equal(getsid(pid), pid);
        assert_true(fcntl(pidfd, F_GETFD) & FD_CLOEXEC);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(only_named_descriptors_are_passed),
                cmocka_unit_test(targets_and_sources_may_overlap),
                cmocka_unit_test(a_failed_exec_is_an_error),
                cmocka_unit_test(environment_and_directory),
                cmocka_unit_test(signals_start_at_their_defaults),
                cmocka_unit_test(sessions_and_pidfds),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
