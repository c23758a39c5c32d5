/* start, resume and delete: those of every container, and what the machine's network and clock
 * need; ps. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "guest/clock.h"
#include "guest/guest.h"
#include "guest/network.h"
#include "guest/ps.h"
#include "guest/session.h"
#include "sys/namespace.h"
#include "sys/overlay.h"
#include "sys/process.h"

int guest_open_network(pid_t pid, int *ret_fd, struct err *err)
{
        char path[48];
        snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
        return namespace_open(path, NAMESPACE_NETWORK, ret_fd, err);
}

static int open_directory(const char *root, const char *id, int *ret_fd, struct err *err)
{
        auto_free char *path = xasprintf("%s/%s/" STATE_MACHINE, root, id);
        *ret_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return *ret_fd < 0 ? err_set(err, errno, "open '%s'", path) : 0;
}

static int join_network(const char *root, const char *id, struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        enum state_status status = STATE_STOPPED;
        auto_fd directory = -1, netns = -1;
        int r = state_open(root, id, true, &state, err);
        if (r == 0)
                r = state_read(&state, false, &record, err);
        if (r == 0)
                r = state_status(&state, &record, &status, err);
        if (r < 0 || status != STATE_CREATED) /* container_start tells it */
                return r;
        r = open_directory(root, id, &directory, err);
        if (r == 0)
                r = guest_open_network((pid_t)record.pid, &netns, err);
        return r == 0 ? network_join(directory, netns, err) : r;
}

int guest_start(const char *root, const char *id, struct err *err)
{
        int r = join_network(root, id, err);
        return r == 0 ? container_start(root, id, err) : r;
}

int guest_resume(const char *root, const char *id, struct err *err)
{
        auto_fd directory = -1;
        int r = container_resume(root, id, err);
        if (r == 0)
                r = open_directory(root, id, &directory, err);
        return r == 0 ? file_replace(directory, CLOCK_RESUMED, "", 0, 0600, false, err) : r;
}

/* The namespace that it has by name may be gone, or somebody's else; the one of its own goes
 * with it, unless somebody keeps it, who is the one to clean it then. */
static int open_last_network(const struct record *record, enum state_status status)
{
        const struct oci_namespace *net = oci_spec_namespace(record->config, OCI_NAMESPACE_NETWORK);
        int fd = -1;
        if (net && !str_empty(net->path))
                (void)namespace_open(net->path, NAMESPACE_NETWORK, &fd, NULL);
        else if (status != STATE_STOPPED && status != STATE_CREATING)
                (void)guest_open_network((pid_t)record->pid, &fd, NULL);
        return fd;
}

static int leave_network(const char *root, const char *id, bool force, struct err *err)
{
        auto_record record = { 0 };
        enum state_status status;
        auto_fd directory = -1;
        if (container_load(root, id, true, &record, &status, NULL) < 0)
                return 0; /* container_delete tells it, or removes what is left */
        bool runs = status == STATE_RUNNING || status == STATE_PAUSED;
        if (runs && !force)
                return 0;
        auto_network network = { 0 };
        auto_fd netns = open_last_network(&record, status);
        if (netns < 0 || open_directory(root, id, &directory, NULL) < 0)
                return 0;
        int r = network_read(directory, &network, err);
        return r == 0 ? network_leave(&network, netns, err) : r;
}

int guest_delete(const char *root, const char *id, bool force, struct err *err)
{
        auto_free char *layer = root_noted(root, id);
        int r = leave_network(root, id, force, err);
        if (r == 0)
                r = container_delete(root, id, force, err);
        return r == 0 && layer ? overlay_share_marks(layer, err) : r;
}

int guest_reach(const char *root, const char *id, const char *what, int *ret_fd, struct err *err)
{
        auto_record record = { 0 };
        auto_fd directory = -1;
        enum state_status status;
        int r = container_load(root, id, false, &record, &status, err);
        if (r < 0)
                return r;
        if (status == STATE_PAUSED)
                return err_plain(err, EBUSY, "a paused virtual machine cannot %s; resume it", what);
        if (status != STATE_RUNNING && status != STATE_CREATED)
                return err_plain(err, EINVAL, "container not running");
        r = open_directory(root, id, &directory, err);
        return r == 0 ? agent_connect(directory, ret_fd, err) : r;
}

static int ask_list(const char *root, const char *id, struct agent_reply *ret, struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_LIST };
        auto_buf in = { 0 };
        auto_fd fd = -1;
        int r = guest_reach(root, id, "be asked for its processes", &fd, err);
        return r == 0 ? agent_ask(fd, &in, &request, ret, err) : r;
}

int guest_ps(const char *root, const char *id, char *const *options, struct err *err)
{
        auto_agent_reply reply = { 0 };
        auto_buf table = { 0 };
        struct ps_columns *columns;
        int r = ps_parse(options, &columns, err);
        if (r < 0)
                return r;
        r = ask_list(root, id, &reply, err);
        if (r == 0) {
                ps_print(columns, &reply, clock_realtime_ns(), &table);
                fwrite(buf_text(&table), 1, table.size, stdout);
        }
        ps_columns_free(columns);
        return r;
}
