#include "vmm/control/saving.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/buf.h"
#include "vmm/snapshot/snapshot.h"

/* A file that has something is somebody's. */
static int check_file(int fd, struct err *err)
{
        struct stat st;
        if (fd < 0)
                return err_plain(err, EBADF,
                                 "the file for the machine's memory comes as a descriptor with the "
                                 "request; isle-vmm --snapshot does that");
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "the file for the machine's memory");
        if (!S_ISREG(st.st_mode) || st.st_size != 0)
                return err_plain(err, EINVAL,
                                 "what came for the machine's memory is no empty file");
        return 0;
}

void saving_answer(struct http_request *request, struct vm *vm)
{
        auto_fd fd = http_request_take_fd(request);
        auto_buf state = { 0 };
        struct err err = { 0 };
        int r = check_file(fd, &err);
        if (r < 0) {
                http_reply_error(request, 400, "%s", err_text(&err));
                return;
        }
        r = snapshot_save(vm->machine, fd, &state, &err);
        if (r < 0)
                http_reply_error(request, r == -ENOTSUP || r == -EAGAIN ? 409 : 500, "%s",
                                 err_text(&err));
        else
                http_reply(request, 200, "application/octet-stream", state.data, state.size);
}
