#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/auto.h"
#include "guest/guest.h"
#include "guest/session.h"

#define CHUNK_BYTES 4096

/* The answer, as far as it is there: 1, 0 or -errno. */
static int read_answer(int fd, struct buf *in, struct err *err)
{
        auto_free char *line = NULL;
        auto_agent_reply reply = { 0 };
        size_t size;
        ssize_t n = read(fd, buf_reserve(in, CHUNK_BYTES), CHUNK_BYTES);
        if (n < 0 && errno == EINTR)
                return 0;
        if (n <= 0)
                return err_plain(err, ECONNRESET, "the virtual machine is gone");
        buf_commit(in, (size_t)n);
        int r = message_take_line(in, &line, &size, err);
        if (r <= 0)
                return r;
        r = agent_take_reply(line, size, &reply, err);
        return r < 0 ? r : 1;
}

/* Standard input may be slow; a guest that does not take what is there is not waited for. */
static int pass_archive(int fd, struct buf *in, struct err *err)
{
        struct pump pump = { .from = 0, .to = fd, .keeps_from = true, .keeps_to = true };
        int r = 0;
        while (r == 0) {
                struct pollfd entries[PUMP_ENTRIES + 1];
                bool is_its_turn = pump.held.size || pump_done(&pump);
                pump_watch(&pump, entries);
                entries[PUMP_ENTRIES] = (struct pollfd){ fd, POLLIN, 0 };
                int n = poll(entries, PUMP_ENTRIES + 1, is_its_turn ? SESSION_TIMEOUT_MS : -1);
                if (n == 0)
                        r = err_plain(err, ETIMEDOUT, "the agent in the guest does not answer");
                else if (n < 0 && errno != EINTR)
                        r = err_set(err, errno, "poll");
                if (r < 0 || n < 0)
                        continue;
                pump_work(&pump, entries);
                if (entries[PUMP_ENTRIES].revents)
                        r = read_answer(fd, in, err);
        }
        pump_close(&pump);
        return r < 0 ? r : 0;
}

int guest_extract(const struct extract_options *options, struct err *err)
{
        uint32_t owner[] = { options->uid, options->gid };
        struct agent_request request = {
                .op = AGENT_OP_EXTRACT,
                .path = (char *)(uintptr_t)options->place.path,
                .container = (char *)(uintptr_t)options->place.name,
                .owner = owner,
                .owner_length = options->has_owner ? 2 : 0,
                .no_overwrite_dir_non_dir = options->no_overwrite_dir_non_dir
        };
        auto_agent_reply reply = { 0 };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        int r = guest_reach(options->place.root, options->place.id, "take files", &fd, err);
        if (r == 0)
                r = agent_ask(fd, &in, &request, &reply, err);
        return r == 0 ? pass_archive(fd, &in, err) : r;
}
