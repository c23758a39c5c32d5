/* The host's side of a session, with an agent that answers as it likes. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/file.h"
#include "guest/session.h"

static char directory[] = "/tmp/isle-test-session-XXXXXX";

static void read_line(int fd, char *line, size_t size)
{
        size_t n = 0;
        while (n + 1 < size && read(fd, line + n, 1) == 1 && line[n] != '\n')
                n++;
        line[n] = '\0';
}

static void say(int fd, const char *text)
{
        if (io_write_full(fd, text, strlen(text)) < 0)
                _exit(1);
}

/* Streams end at once; to a launch it says `answer`. */
static void be_agent(int listener, const char *answer)
{
        char line[4096];
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
                int fd = accept(listener, NULL, NULL);
                read_line(fd, line, sizeof(line));
                say(fd, "OK 1\n");
                read_line(fd, line, sizeof(line));
                bool launch = strstr(line, "\"launch\"");
                say(fd, launch ? answer : "{\"ok\":true}\n");
                if (!launch)
                        close(fd);
        }
}

static pid_t start_agent(const char *answer, int *ret_directory)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        snprintf(address.sun_path, sizeof(address.sun_path), "%s/vsock", directory);
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void)unlink(address.sun_path);
        assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(listen(listener, 8), 0);
        pid_t pid = fork();
        if (pid == 0)
                be_agent(listener, answer);
        close(listener);
        *ret_directory = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return pid;
}

static void stop_agent(pid_t pid)
{
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

static int open_session(struct session *session, int dirfd, struct err *err)
{
        static char *argv[] = { "exec", NULL };
        struct agent_request request = { .op = AGENT_OP_LAUNCH, .argv = argv };
        return session_open(session, dirfd, &request, err);
}

static void an_end_that_comes_with_the_answer_is_seen(void **state)
{
        (void)state;
        struct session session;
        struct err err = { 0 };
        auto_fd dirfd = -1;
        pid_t agent = start_agent("{\"pid\":7}\n{\"exit\":3}\n", &dirfd);
        assert_int_equal(open_session(&session, dirfd, &err), 0);
        assert_true(session.has_exit);
        assert_int_equal(session.exit_code, 3);
        assert_int_equal(session.control, -1);
        session_close(&session);
        stop_agent(agent);
}

static void kills_are_counted_on_the_way(void **state)
{
        (void)state;
        struct session session;
        struct err err = { 0 };
        auto_fd dirfd = -1;
        pid_t agent = start_agent(
                "{\"pid\":7}\n{\"oom_kills\":2}\n{\"oom_kills\":1}\n{\"exit\":137}\n", &dirfd);
        assert_int_equal(open_session(&session, dirfd, &err), 0);
        assert_int_equal(session.oom_kills, 2);
        assert_true(session.has_exit);
        assert_int_equal(session.exit_code, 137);
        session_close(&session);
        stop_agent(agent);
}

static void half_a_line_is_waited_for(void **state)
{
        (void)state;
        struct session session;
        struct err err = { 0 };
        auto_fd dirfd = -1;
        pid_t agent = start_agent("{\"pid\":7}\n{\"ex", &dirfd);
        assert_int_equal(open_session(&session, dirfd, &err), 0);
        assert_false(session.has_exit);
        assert_true(session.control >= 0);
        session_close(&session);
        stop_agent(agent);
}

static void answers_that_are_none_are_errors(void **state)
{
        (void)state;
        static const char *const answers[] = { "{\"pid\":-1}\n", "{}\n", "no\n",
                                               "{\"pid\":7}\n{\"exit\":256}\n" };
        for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++) {
                struct session session;
                struct err err = { 0 };
                auto_fd dirfd = -1;
                pid_t agent = start_agent(answers[i], &dirfd);
                assert_true(open_session(&session, dirfd, &err) < 0);
                assert_true(*err_text(&err));
                stop_agent(agent);
        }
}

static int make_directory(void **state)
{
        (void)state;
        return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
        (void)state;
        return file_remove_tree(AT_FDCWD, directory, NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_end_that_comes_with_the_answer_is_seen),
                cmocka_unit_test(kills_are_counted_on_the_way),
                cmocka_unit_test(half_a_line_is_waited_for),
                cmocka_unit_test(answers_that_are_none_are_errors),
        };
        return cmocka_run_group_tests_name("guest-session", tests, make_directory,
                                           remove_directory);
}
