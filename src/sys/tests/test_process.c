#include "sys/process.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/tests/test.h"

static void signals_have_names_and_numbers(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                int signo;
        } cases[] = {
                { "TERM", SIGTERM }, { "SIGTERM", SIGTERM }, { "sigkill", SIGKILL }, { "15", 15 },
                { "0", 0 },          { "HUP", SIGHUP },      { "SIGUSR2", SIGUSR2 },
        };
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                int signo = -1;
                assert_int_equal(process_signal_parse(cases[i].text, &signo), 0);
                assert_int_equal(signo, cases[i].signo);
        }
        int signo;
        assert_int_equal(process_signal_parse("RTMIN+3", &signo), 0);
        assert_int_equal(signo, SIGRTMIN + 3);
        assert_int_equal(process_signal_parse("SIGRTMAX-1", &signo), 0);
        assert_int_equal(signo, SIGRTMAX - 1);
        assert_int_equal(process_signal_parse("RTMAX", &signo), 0);
        assert_int_equal(signo, SIGRTMAX);
}

static void what_is_no_signal_is_refused(void **state)
{
        (void)state;
        static const char *const bad[] = { "",
                                           "SIG",
                                           "NONE",
                                           "-9",
                                           "999",
                                           "RTMIN+99",
                                           "RTMIN-1",
                                           "RTMAX+1",
                                           "SIGSIGHUP",
                                           "TERM ",
                                           "AVERYLONGNAMEINDEED" };
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                int signo = 77;
                assert_int_equal(process_signal_parse(bad[i], &signo), -EINVAL);
                assert_int_equal(signo, 77);
        }
}

static void exit_codes_are_those_of_shells(void **state)
{
        (void)state;
        assert_int_equal(process_exit_code(0), 0);
        assert_int_equal(process_exit_code(7 << 8), 7);
        assert_int_equal(process_exit_code(SIGKILL), 137);
}

static void identity_is_pid_and_start(void **state)
{
        (void)state;
        uint64_t start;
        assert_int_equal(process_start_time(getpid(), &start, NULL), 0);
        assert_true(process_same(getpid(), start));
        assert_false(process_same(getpid(), start + 1));
        assert_false(process_same(0, start));
        auto_fd fd = -1;
        assert_int_equal(process_open(getpid(), start, &fd, NULL), 0);
        int other = -1;
        assert_int_equal(process_open(getpid(), start + 1, &other, NULL), -ESRCH);
        assert_int_equal(other, -1);
}

static void zombies_are_not_alive(void **state)
{
        (void)state;
        pid_t pid = fork();
        if (pid == 0)
                _exit(0);
        siginfo_t info;
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        uint64_t start;
        assert_int_equal(process_start_time(pid, &start, NULL), 0);
        assert_false(process_same(pid, start));
        struct process_stat stat;
        assert_int_equal(process_stat(pid, &stat, NULL), 0);
        assert_int_equal(stat.state, 'Z');
        assert_int_equal(stat.parent, getpid());
        waitpid(pid, NULL, 0);
        assert_int_equal(process_stat(pid, &stat, NULL), -ESRCH);
}

static void waiting_has_a_limit(void **state)
{
        (void)state;
        pid_t pid = fork();
        if (pid == 0)
                for (;;)
                        pause();
        auto_fd fd = -1;
        assert_int_equal(process_open(pid, 0, &fd, NULL), 0);
        assert_int_equal(process_wait_gone(fd, 1, NULL), 0);
        assert_int_equal(process_signal(fd, SIGKILL, NULL), 0);
        assert_int_equal(process_wait_gone(fd, -1, NULL), 1);
        waitpid(pid, NULL, 0);
        assert_int_equal(process_signal(fd, SIGKILL, NULL), -ESRCH);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(signals_have_names_and_numbers),
                cmocka_unit_test(what_is_no_signal_is_refused),
                cmocka_unit_test(exit_codes_are_those_of_shells),
                cmocka_unit_test(identity_is_pid_and_start),
                cmocka_unit_test(zombies_are_not_alive),
                cmocka_unit_test(waiting_has_a_limit),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
