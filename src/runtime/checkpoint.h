/* Checkpoint and restore: a container's processes are written to a directory of images, and made
 * anew from there, on this host or another.
 *
 * Theory of operation. CRIU does the work (criu.h); what only the runtime knows it is told:
 *
 *   dump      which mounts come from outside (criu_mounts.h), which namespaces belong to others,
 *             which standard descriptors were the caller's. Those are written beside the images,
 *             as runc and crun do: descriptors.json.
 *   restore   the way of a creation (launch.h) up to where the first process would be cloned:
 *             state directory, record, cgroup. Then CRIU is started in the container's cgroup, so
 *             all that it makes is in there, and in a mount namespace of its own, so nothing is
 *             left mounted however it ends:
 *
 *               runtime                          criu
 *               record 1, cgroup
 *               start, join cgroup ------------> reads the images
 *               hooks            <- setup-namespaces
 *               terminal         <- orphan-pts-master
 *               limits, record 2 <- post-restore
 *                                                lets the processes go
 *
 *             The restored first process is our child, as a created one would be. Limits come
 *             last, since CRIU itself must not be stopped by them.
 *
 * Hooks: prestart, createRuntime and poststart are run at a restore, poststop at the deletion
 * that follows a dump. createContainer and startContainer are not: what they did inside is in the
 * images. */
#pragma once

#include "runtime/criu_wire.h"
#include "runtime/launch.h"

#define CHECKPOINT_DESCRIPTORS "descriptors.json"
#define CHECKPOINT_NOTIFY      "isle-notify" /* record.notify_place, where there is one */

struct checkpoint_options {
        const char *criu;        /* the program; NULL: criu in PATH */
        bool as_crun;            /* /etc/criu/crun.conf comes before runc.conf */
        const char *image_path;  /* made by a dump where it is missing */
        const char *work_path;   /* for CRIU's log; NULL: image_path */
        const char *parent_path; /* of a dump: earlier images, relative to image_path; NULL */
        const char *lsm_profile, *lsm_mount_context; /* of a restore; NULL: as dumped */
        enum criu_cgroups cgroups;
        bool leave_running, pre_dump; /* of a dump */
        bool tcp_established, tcp_close, ext_unix_sk, shell_job, file_locks, link_remap, auto_dedup;
        int status_fd; /* of a dump: gets a zero byte when the images are complete; -1 */
};

/* The standard descriptors of a process that we start now, as CRIU would name them: "pipe:[7]",
 * "file[1a:5]", or "" for what it has no such name for. Heap. */
char **checkpoint_descriptors(void);
char *checkpoint_descriptor(int fd);
/* As descriptors.json has them, three in any case; heap. */
char *checkpoint_descriptors_text(char *const *descriptors);

/* Writes the images. After a failure the container goes on as before, `paused` or not. After
 * success its processes are gone, unless options say otherwise; it is not deleted yet. */
int checkpoint_dump(const struct record *record, bool paused,
                    const struct checkpoint_options *options, struct err *err);

/* transform() of the variant below: adds to the spec what was mounted besides. */
int checkpoint_restore_mounts(struct launch *launch, void *arg, struct err *err);
/* make() of a launch_variant whose arg are struct checkpoint_options: the container's tree is made
 * from the images. */
int checkpoint_restore(struct launch *launch, void *arg, struct err *err);

/* For both directions. *ret_images and *ret_work (-1: none) are the caller's. */
int checkpoint_open_directories(const struct checkpoint_options *options, bool make,
                                int *ret_images, int *ret_work, struct err *err);
/* What CRIU can do with this container and we cannot yet. */
int checkpoint_check(const struct plan *plan, struct err *err);
/* The user's own options for CRIU, where runc has them: the file of an annotation, or one of the
 * host's, or NULL. */
const char *checkpoint_config_file(char *const *annotations, bool as_crun);
