#include "guest/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rand.h"
#include "base/str.h"
#include "guest/guest.h"

#define CHUNK_BYTES   65536
#define GREETING_MAX  64
#define CLOCK_SAMPLES 3

static int wait_readable(int fd, int64_t deadline_ns, struct err *err)
{
        for (;;) {
                int64_t left_ms = (deadline_ns - clock_monotonic_ns()) / NS_PER_MS;
                struct pollfd entry = { fd, POLLIN, 0 };
                int n = left_ms > 0 ? poll(&entry, 1, (int)left_ms) : 0;
                if (n > 0)
                        return 0;
                if (n == 0)
                        return err_plain(err, ETIMEDOUT, "the agent in the guest does not answer");
                if (errno != EINTR)
                        return err_set(err, errno, "poll");
        }
}

/* One line more of `in`, read as far as needed. */
static int read_line(int fd, struct buf *in, char **ret, size_t *ret_size, struct err *err)
{
        int64_t deadline_ns = clock_monotonic_ns() + SESSION_TIMEOUT_MS * NS_PER_MS;
        int r;
        while ((r = message_take_line(in, ret, ret_size, err)) == 0) {
                r = wait_readable(fd, deadline_ns, err);
                if (r < 0)
                        return r;
                ssize_t n = read(fd, buf_reserve(in, CHUNK_BYTES), CHUNK_BYTES);
                if (n == 0)
                        return err_plain(err, ECONNRESET, "the guest has closed the connection");
                if (n < 0 && errno != EINTR)
                        return err_set(err, errno, "read from the guest");
                if (n > 0)
                        buf_commit(in, (size_t)n);
        }
        return r < 0 ? r : 0;
}

/* "CONNECT port\n", answered with "OK port\n": Firecracker's way. */
int agent_connect(int directory_fd, int *ret_fd, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        auto_buf line = { 0 };
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory_fd,
                 GUEST_SOCKET);
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "reach the virtual machine");
        buf_printf(&line, "CONNECT %d\n", AGENT_PORT);
        if (io_write_full(fd, line.data, line.size) < 0)
                return err_set(err, errno, "reach the agent in the guest");
        char greeting[GREETING_MAX] = "";
        int64_t deadline_ns = clock_monotonic_ns() + SESSION_TIMEOUT_MS * NS_PER_MS;
        /* Byte by byte: what follows the line is not ours. */
        for (size_t n = 0; n + 1 < sizeof(greeting) && !strchr(greeting, '\n'); n++) {
                int r = wait_readable(fd, deadline_ns, err);
                if (r < 0)
                        return r;
                if (read(fd, greeting + n, 1) != 1)
                        break;
        }
        if (!str_starts(greeting, "OK "))
                return err_plain(err, ECONNREFUSED, "the agent in the guest does not listen");
        *ret_fd = take_fd(fd);
        return 0;
}

static int send_request(int fd, const struct agent_request *request, struct err *err)
{
        auto_buf line = { 0 };
        agent_request_put(request, &line);
        if (io_write_full(fd, line.data, line.size) < 0)
                return err_set(err, errno, "tell the agent in the guest");
        return 0;
}

/* The host's runtime says the same of its own call. */
static const char *what_failed(const char *text)
{
        static const char *const known[] = { "create container " GUEST_ID ": ", "exec failed: " };
        for (size_t i = 0; i < ELEMENTS(known); i++)
                if (str_starts(text, known[i]))
                        return text + strlen(known[i]);
        return text;
}

int agent_take_reply(const char *line, size_t size, struct agent_reply *ret, struct err *err)
{
        int r = agent_reply_parse(line, size, ret, err);
        if (r < 0 || !ret->error)
                return r;
        r = err_plain(err, ret->code > 0 && ret->code < 4096 ? ret->code : EREMOTEIO, "%s",
                      what_failed(ret->error));
        agent_reply_finish(ret);
        return r;
}

int agent_ask(int fd, struct buf *in, const struct agent_request *request, struct agent_reply *ret,
              struct err *err)
{
        auto_free char *line = NULL;
        size_t size;
        int r = send_request(fd, request, err);
        if (r == 0)
                r = read_line(fd, in, &line, &size, err);
        return r == 0 ? agent_take_reply(line, size, ret, err) : r;
}

int agent_call(int directory_fd, char *const *argv, struct agent_reply *ret, struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_CALL, .argv = (char **)(uintptr_t)argv };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        int r = agent_connect(directory_fd, &fd, err);
        return r == 0 ? agent_ask(fd, &in, &request, ret, err) : r;
}

struct clock_sample {
        int64_t ahead_ns; /* the host's is, of the guest's; right to half of the width */
        int64_t width_ns;
};

static int sample_clock(int fd, struct buf *in, struct clock_sample *best, struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_CLOCK };
        auto_agent_reply reply = { 0 };
        int64_t before_ns = clock_realtime_ns();
        int r = agent_ask(fd, in, &request, &reply, err);
        int64_t width_ns = clock_realtime_ns() - before_ns;
        int64_t ahead_ns;
        if (r < 0)
                return r;
        if (__builtin_sub_overflow(before_ns + width_ns / 2, reply.realtime_ns, &ahead_ns))
                return err_plain(err, EPROTO, "the guest's clock is out of range");
        if (width_ns >= 0 && width_ns < best->width_ns)
                *best = (struct clock_sample){ ahead_ns, width_ns };
        return 0;
}

int agent_set_clock(int directory_fd, bool gently, struct err *err)
{
        struct clock_sample best = { .width_ns = INT64_MAX };
        struct agent_request request = { .op = AGENT_OP_CLOCK };
        auto_agent_reply reply = { 0 };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        int r = agent_connect(directory_fd, &fd, err);
        for (int i = 0; r == 0 && i < CLOCK_SAMPLES; i++)
                r = sample_clock(fd, &in, &best, err);
        int64_t half_ns = best.width_ns / 2;
        if (r < 0 || (best.ahead_ns >= -half_ns && best.ahead_ns <= half_ns))
                return r;
        request.shift_ns = best.ahead_ns;
        request.gently = gently;
        return agent_ask(fd, &in, &request, &reply, err);
}

static int open_stream(int directory_fd, const char *key, unsigned number, int *ret_fd,
                       struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_STREAM,
                                         .key = (char *)(uintptr_t)key,
                                         .fd = number };
        auto_agent_reply reply = { 0 };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        int r = agent_connect(directory_fd, &fd, err);
        if (r == 0)
                r = agent_ask(fd, &in, &request, &reply, err);
        if (r < 0)
                return r;
        /* Nothing is sent before the launch. */
        if (in.size)
                return err_plain(err, EPROTO, "the guest speaks before it was asked");
        *ret_fd = take_fd(fd);
        return 0;
}

static void fill_size(struct agent_request *request)
{
        struct winsize size;
        if (ioctl(0, TIOCGWINSZ, &size) < 0)
                return;
        request->rows = size.ws_row;
        request->columns = size.ws_col;
}

static int open_streams(struct session *session, int directory_fd, const char *key, struct err *err)
{
        int fds[SESSION_STREAMS] = { -1, -1, -1 };
        for (unsigned i = 0; i < (session->terminal ? 1 : SESSION_STREAMS); i++) {
                int r = open_stream(directory_fd, key, i, &fds[i], err);
                if (r < 0)
                        return r;
                session->pumps[i] = (struct pump){ .from = i == 0 ? 0 : fds[i],
                                                   .to = i == 0 ? fds[i] : (int)i,
                                                   .keeps_from = i == 0,
                                                   .keeps_to = i > 0 || session->terminal,
                                                   .careful = i > 0 };
        }
        if (session->terminal)
                session->pumps[1] = (struct pump){ .from = fds[0],
                                                   .to = 1,
                                                   .keeps_from = false,
                                                   .keeps_to = true,
                                                   .careful = true };
        return 0;
}

static void take(struct session *session, const struct agent_reply *reply)
{
        if (reply->oom_kills > session->oom_kills)
                session->oom_kills = reply->oom_kills;
        if (!reply->has_exit)
                return;
        session->has_exit = true;
        session->exit_code = reply->exit;
        close_fd(&session->control);
        pump_close(&session->pumps[0]);
}

/* What is told on the way, and the end, as far as they are there. */
static int take_news(struct session *session, struct err *err)
{
        while (!session->has_exit) {
                auto_free char *line = NULL;
                size_t size;
                auto_agent_reply reply = { 0 };
                int r = message_take_line(&session->in, &line, &size, err);
                if (r > 0)
                        r = agent_reply_parse(line, size, &reply, err);
                else if (r == 0)
                        return 0;
                if (r < 0)
                        return r;
                take(session, &reply);
        }
        return 0;
}

static int read_news(struct session *session, struct err *err)
{
        ssize_t n = read(session->control, buf_reserve(&session->in, CHUNK_BYTES), CHUNK_BYTES);
        if (n < 0 && errno == EINTR)
                return 0;
        if (n <= 0)
                return err_plain(err, ECONNRESET, "the virtual machine is gone");
        buf_commit(&session->in, (size_t)n);
        return take_news(session, err);
}

int session_open(struct session *session, int directory_fd, struct agent_request *request,
                 struct err *err)
{
        auto_agent_reply reply = { 0 };
        *session = (struct session){ .control = -1, .terminal = request->terminal };
        for (int i = 0; i < SESSION_STREAMS; i++)
                session->pumps[i] = (struct pump){ .from = -1, .to = -1 };
        rand_hex(session->key, sizeof(session->key) - 1);
        request->key = session->key;
        if (request->terminal)
                fill_size(request);
        int r = open_streams(session, directory_fd, session->key, err);
        if (r == 0)
                r = agent_connect(directory_fd, &session->control, err);
        if (r == 0)
                r = agent_ask(session->control, &session->in, request, &reply, err);
        request->key = NULL;
        if (r == 0 && reply.pid <= 0)
                r = err_plain(err, EPROTO, "the guest names process %jd", (intmax_t)reply.pid);
        if (r == 0) /* a short one has ended by now: what tells so may have come with the answer */
                r = take_news(session, err);
        if (r < 0)
                session_close(session);
        return r;
}

int session_give_cards(struct session *session, int directory_fd, struct agent_card *cards,
                       size_t length, struct err *err)
{
        struct agent_request request = {
                .op = AGENT_OP_NETWORK, .key = session->key, .cards = cards, .cards_length = length
        };
        auto_agent_reply reply = { 0 };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        int r = agent_connect(directory_fd, &fd, err);
        return r == 0 ? agent_ask(fd, &in, &request, &reply, err) : r;
}

void session_watch(const struct session *session, struct pollfd entries[SESSION_ENTRIES])
{
        entries[0] = (struct pollfd){ session->control, POLLIN, 0 };
        for (int i = 0; i < SESSION_STREAMS; i++)
                pump_watch(&session->pumps[i], entries + 1 + i * PUMP_ENTRIES);
}

int session_work(struct session *session, const struct pollfd entries[SESSION_ENTRIES],
                 struct err *err)
{
        for (int i = 0; i < SESSION_STREAMS; i++)
                pump_work(&session->pumps[i], entries + 1 + i * PUMP_ENTRIES);
        return session->control >= 0 && entries[0].revents ? read_news(session, err) : 0;
}

bool session_done(const struct session *session)
{
        return session->has_exit && pump_done(&session->pumps[1]) && pump_done(&session->pumps[2]);
}

int session_signal(struct session *session, int signo, struct err *err)
{
        if (session->control < 0)
                return 0;
        return send_request(
                session->control,
                &(struct agent_request){ .op = AGENT_OP_SIGNAL, .signal = (uint32_t)signo }, err);
}

int session_resize(struct session *session, struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_RESIZE };
        if (session->control < 0)
                return 0;
        fill_size(&request);
        return send_request(session->control, &request, err);
}

void session_close(struct session *session)
{
        for (int i = 0; i < SESSION_STREAMS; i++)
                pump_close(&session->pumps[i]);
        close_fd(&session->control);
        buf_finish(&session->in);
}
