#include "base/tests/test.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "http/tests/script.h"

/* Waits for either descriptor; false when told to stop. */
static bool await_input(const struct script *script, int fd)
{
        struct pollfd fds[] = { { .fd = fd, .events = POLLIN },
                                { .fd = script->stop_fd[0], .events = POLLIN } };
        return poll(fds, 2, -1) > 0 && !fds[1].revents;
}

static bool hear(struct script *script, int fd, size_t from, const char *wanted)
{
        while (wanted && !strstr(buf_text(&script->heard) + from, wanted)) {
                if (!await_input(script, fd))
                        return false;
                ssize_t got = recv(fd, buf_reserve(&script->heard, 4096), 4096, 0);
                if (got <= 0)
                        return false;
                buf_commit(&script->heard, (size_t)got);
        }
        return true;
}

static void *script_main(void *arg)
{
        struct script *script = arg;
        int fd = -1;
        for (size_t i = 0; i < script->length; i++) {
                const struct script_step *step = &script->steps[i];
                if (fd < 0) {
                        if (!await_input(script, script->listen_fd))
                                break;
                        fd = accept(script->listen_fd, NULL, NULL);
                }
                size_t from = script->heard.size;
                if (!hear(script, fd, from, step->wait))
                        break;
                if (step->send)
                        send(fd, step->send, step->size ? step->size : strlen(step->send),
                             MSG_NOSIGNAL);
                atomic_fetch_add(&script->played, 1);
                if (step->hold)
                        await_input(script, script->stop_fd[0]);
                if (!step->keep)
                        close_fd(&fd);
        }
        close_fd(&fd);
        return NULL;
}

void script_start(struct script *script, const struct script_step *steps, size_t length)
{
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(address);
        *script = (struct script){ .steps = steps, .length = length };
        script->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(script->listen_fd, (struct sockaddr *)&address, size), 0);
        assert_int_equal(listen(script->listen_fd, 8), 0);
        getsockname(script->listen_fd, (struct sockaddr *)&address, &size);
        snprintf(script->url, sizeof(script->url), "http://127.0.0.1:%u", ntohs(address.sin_port));
        assert_int_equal(pipe(script->stop_fd), 0);
        assert_int_equal(pthread_create(&script->thread, NULL, script_main, script), 0);
}

void script_stop(struct script *script)
{
        close_fd(&script->stop_fd[1]);
        pthread_join(script->thread, NULL);
        close_fd(&script->stop_fd[0]);
        close_fd(&script->listen_fd);
}
