/*
 * Converting guest_memfd memory between private and shared, in place: the protocol that
 * virt/kvm/guest_memfd.c and guest_memfd_convert.c follow, one step for each access to the
 * attributes, the flags and references of folios, the page tables and the invalidation
 * sequence.  README.md says what is left out and how to read a trail.
 *
 * What runs and how is a macro:
 *   NP, FPP        number of pages; of folios that a page can have had (2 with PUNCH)
 *   TO_PRIVATE, TO_SHARED, ZERO, VCPU, HOST, GUP, MUNMAP, MF, PUNCH, CLOSE, UNBIND
 *                  number of processes of that kind
 *   RMP            0: a VM type without make_private() and make_shared()
 *   LRU            1: a new folio has a reference in a batch until that is drained
 *   ROUNDS         how many accesses a vCPU makes
 *   EAGAIN_CHECK   1: also assert USER, with folios found and locked in one step
 *   NO_...         a switch: leaves out one lock, barrier or ordering
 */

#ifndef NP
#define NP 2
#endif
#ifndef FPP
#define FPP 1
#endif
#ifndef RMP
#define RMP 1
#endif
#ifndef LRU
#define LRU 0
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef EAGAIN_CHECK
#define EAGAIN_CHECK 0
#endif
/* Otherwise the window between finding and locking a folio hides all other causes. */
#ifndef NO_FIND_ATOMIC
#define FIND_ATOMIC EAGAIN_CHECK
#else
#define FIND_ATOMIC 0
#endif
#ifndef TO_PRIVATE
#define TO_PRIVATE 0
#endif
#ifndef TO_SHARED
#define TO_SHARED 0
#endif
#ifndef ZERO
#define ZERO 0
#endif
#ifndef VCPU
#define VCPU 0
#endif
#ifndef HOST
#define HOST 0
#endif
#ifndef GUP
#define GUP 0
#endif
#ifndef MUNMAP
#define MUNMAP 0
#endif
#ifndef MF
#define MF 0
#endif
#ifndef PUNCH
#define PUNCH 0
#endif
#ifndef CLOSE
#define CLOSE 0
#endif
#ifndef UNBIND
#define UNBIND 0
#endif

#define NF	(NP * FPP)
#define NONE	NF

/* What a page contains. */
#define GARBAGE	0	/* whatever the host had there before */
#define ZEROES	1
#define OPEN	2	/* written by the host, or by the guest to shared memory */
#define SECRET	3	/* written by the guest to private memory */
#define ANY	4	/* only for contents[], see there */

/*
 * Names of the assertions, always false, so that what pan prints says which one failed:
 * assert(I1 || condition).
 *
 * I1       a private page has no host mapping and no foreign reference
 * I2       a guest mapping agrees with the attribute
 * I3       a call that fails changes no attribute
 * I4       a page that RMP says is private isn't shared, nor written by the host; no page
 *          is mapped before it was zeroed
 * I5       covered by I11: contents[] of all pages are compared, converted or not
 * I11      contents are those of some order of the calls
 * I12      poisoned memory isn't mapped again
 * LIFE     nobody uses a folio that is free, or maps one that isn't the file's
 * BALANCE  each invalidation that starts ends
 * USER     a call fails with EAGAIN only if somebody has a reference
 */
bool I1, I2, I3, I4, I11, I12, LIFE, BALANCE, USER;

/* The file. */
bool attr[NP];			/* true: private */
byte cache[NP] = NONE;		/* page cache: the page's folio */
bool writer;			/* invalidate_lock */
byte readers;

/* Folios. */
bool locked[NF], uptodate[NF], poison[NF], rmp[NF];
byte refs[NF], data[NF];
bool batch[NF];			/* one of refs is in an LRU batch */

/* Page tables: the host's, the guest's. */
byte pte[NP] = NONE;
byte spte[NP] = NONE;
bool spte_private[NP];

/* MMU. */
bool mmu_locked;
byte in_progress, range, seq;

/* The binding. */
bool bound = true;		/* the memslot is in the file's xarray */
bool slot_file = true;		/* slot->gmem.file and .inode are set */
bool slot_valid = true;
bool slot_freed;
byte root;			/* generation of the root, for memslot deletion */
byte srcu;			/* faults that may use the memslot */
bool closing;			/* the file has no more references to give */
byte users;			/* references to the file */

/*
 * For assertions only.  gup[]: references that GUP has, or is about to verify; held[]:
 * those that it has verified.  contents[]: what the page would contain if each ZERO
 * call took place at its commit; ANY if the host, or the guest in shared memory, wrote
 * to it during such a call, as that may be lost.  zeroing[]: such calls.  contained:
 * pages that memory failure is done with.  looking: pages whose users a conversion is
 * looking for; a fault that starts now doesn't become one.  putting[]: references that
 * faults are about to put, having unlocked the folio.
 */
byte gup[NF], held[NF];
byte contents[NP] = ZEROES;
byte zeroing[NP];
byte contained;
byte looking;
byte putting[NF];

/* ---- locks and references */

inline down_write() { atomic { !writer && readers == 0 -> writer = true } }
inline up_write() { writer = false }
inline down_read() { atomic { !writer -> readers++ } }
inline up_read() { readers-- }

inline lock_folio(f)
{
	atomic {
		!locked[f] -> locked[f] = true;
		assert(LIFE || refs[f] > 0)
	}
}

inline unlock_folio(f)
{
	d_step { assert(LIFE || locked[f]); locked[f] = false }
}

/* To be used in a d_step. */
inline __put_folio(f)
{
	assert(LIFE || refs[f] > 0);
	refs[f]--;
	if
	:: refs[f] == 0 ->
		assert(LIFE || !locked[f]);
		assert(I4 || !rmp[f]);
		uptodate[f] = false; poison[f] = false; data[f] = GARBAGE
	:: else
	fi
}

inline put_folio(f) { d_step { __put_folio(f) } }

inline drain(f)
{
	d_step {
		if
		:: batch[f] -> batch[f] = false; __put_folio(f)
		:: else
		fi
	}
}

/* Memory failure keeps a reference to an unmapped folio that it has poisoned. */
#define USED(f)	(refs[f] > 1 && (refs[f] > 2 || !poison[f] || pte[p] == f))

/*
 * Find the folio, or add one.  Nobody sees a new folio before it is in the page cache,
 * adding it is one step, with the lock of the page cache held.  f is NONE if there
 * is no memory.
 */
inline get_folio(p, f)
{
	fresh = false;
again_find:
	atomic {
#if FIND_ATOMIC
		cache[p] == NONE || !locked[cache[p]];
#endif
		d_step {
			f = cache[p];
			fresh = false;
			if
			:: f != NONE ->
				refs[f]++;
#if FIND_ATOMIC
				locked[f] = true;
				fresh = true
#endif
			:: else ->
				f = p * FPP;
#if FPP > 1
				if
				:: refs[f] > 0 -> f++
				:: else
				fi;
#endif
				if
				:: refs[f] > 0 -> f = NONE
				:: else ->
					fresh = true;
					locked[f] = true;
					refs[f] = 2 + LRU;
					batch[f] = LRU;
					cache[p] = f
				fi
			fi
		}
	}
	if
	:: f == NONE || fresh -> fresh = false
	:: else ->
		lock_folio(f);
		if
#ifndef NO_MAPPING_CHECK
		:: cache[p] != f ->
			unlock_folio(f);
			put_folio(f);
			goto again_find
#endif
		:: else
		fi
	fi
}

/* Folio lock held.  The host writes to the page, for which RMP must say shared. */
inline zero_folio(f)
{
	d_step {
		assert(I4 || !rmp[f]);
		data[f] = ZEROES
	}
	uptodate[f] = true
}

/* ---- invalidation; bindings are stable until it has ended: invalidate_lock is held */

inline invalidate_start(pages)
{
	d_step {
		!mmu_locked;
		if
		:: bound ->
			in_progress++;
			range = (in_progress == 1 -> pages : range | pages)
		:: else
		fi
	}
}

#define SPTE_NONE(p)	spte[p] = NONE; spte_private[p] = false

inline zap(p)
{
	d_step {
		!mmu_locked;
		if
		:: bound -> SPTE_NONE(p)
		:: else
		fi
	}
}

/* A conversion's pages; mmu_lock may be dropped between them. */
inline zap_pages(pages)
{
#ifndef NO_ZAP
	for (p : 0 .. NP - 1) {
		if
		:: ((pages) >> p) & 1 -> zap(p)
		:: else
		fi
	}
#else
	skip
#endif
}

/* Readers without mmu_lock see the two counters change one by one. */
inline seq_inc() { atomic { !mmu_locked; if :: bound -> mmu_locked = true; seq++ :: else fi } }
inline in_progress_dec()
{
	d_step {
		if
		:: bound ->
			assert(BALANCE || in_progress > 0);
			in_progress--;
			range = (in_progress == 0 -> 0 : range);
			mmu_locked = false
		:: else
		fi
	}
}

inline in_progress_dec_first()
{
	atomic {
		!mmu_locked;
		if
		:: bound ->
			mmu_locked = true;
			in_progress--;
			range = (in_progress == 0 -> 0 : range)
		:: else
		fi
	}
}

inline seq_inc_last() { d_step { if :: bound -> seq++; mmu_locked = false :: else fi } }

inline invalidate_end()
{
#ifndef NO_END_ORDER
	seq_inc();
	in_progress_dec()
#else
	in_progress_dec_first();
	seq_inc_last()
#endif
}

#define RETRY(p, s)	((in_progress > 0 && (range >> p) & 1) || seq != s)

#ifndef NO_ROOT
#define STALE_ROOT(r)	(r != root)
#else
#define STALE_ROOT(r)	false
#endif

/* ---- host page tables */

inline unmap_host(p)
{
	d_step {
		if
		:: pte[p] != NONE -> __put_folio(pte[p]); pte[p] = NONE
		:: else
		fi
	}
}

/* ---- conversions */

#define PAGES(lo, hi)	(((1 << (hi - lo + 1)) - 1) << lo)

inline choose_range(lo, hi)
{
#if NP > 1
	if
	:: lo = 0; hi = NP - 1
	:: lo = 0; hi = 0
#if TO_PRIVATE + TO_SHARED + ZERO > 1
	:: lo = NP - 1; hi = NP - 1
#endif
	fi
#else
	skip
#endif
}

#ifndef NO_CONVERT_LOCK
#define convert_lock	down_write
#define convert_unlock	up_write
#else
#define convert_lock	down_read
#define convert_unlock	up_read
#endif

/* Of the file that the call is made on, which may be another VM's. */
inline get_file()
{
	atomic {
		if
		:: closing -> goto out
		:: else -> users++
#if CLOSE
		:: other_file = true
#endif
		fi
	}
}

inline put_file() { if :: other_file :: else -> users-- fi }

/* With a mode, poisoned pages aren't converted. */
inline check_poison(lo, hi)
{
#if MF
	if
	:: mode ->
		for (p : lo .. hi) {
			if
			:: atomic { cache[p] != NONE && poison[cache[p]] -> goto unlock }
			:: else
			fi
		}
	:: else
	fi
#else
	skip
#endif
}

inline commit_private(lo, hi)
{
	for (p : lo .. hi) {
		d_step {
			if
			:: !attr[p] ->
				attr[p] = true;
				assert(I1 || pte[p] == NONE);
				assert(I1 || cache[p] == NONE || held[cache[p]] == 0 || poison[cache[p]]);
				assert(I2 || spte[p] == NONE)
			:: else
			fi
		}
	}
}

#if TO_PRIVATE
proctype to_private()
{
	byte p, f, lo, hi, was;
	byte n;
	bool mode, mapped, user, other_file;

	atomic {
		choose_range(lo, hi);
#if MF
		if
		:: mode = false
		:: mode = true
		fi
#endif
	}
	get_file();
	convert_lock();
	check_poison(lo, hi);

prepare:
	/* invalidate_lock keeps the attributes as they are. */
	was = (attr[lo] << lo) | (attr[hi] << hi);
	if
	:: was == PAGES(lo, hi) -> goto unlock
	:: else
	fi;
#ifndef NO_PREPARE
	if
	:: skip
	:: goto unlock			/* ENOMEM */
	fi;
#endif

#ifndef NO_INVALIDATE_FIRST
invalidate:
	invalidate_start(PAGES(lo, hi));
	zap_pages(PAGES(lo, hi) & ~was);
#endif

look:
#if EAGAIN_CHECK
	looking = PAGES(lo, hi);
#endif
	for (p : lo .. hi) {
		f = cache[p];
		if
		:: atomic { !attr[p] && f != NONE && refs[f] > 1 -> n = refs[f] }
		   /* The count and the mappings are not read in one step. */
		   if
		   :: n - 1 > (pte[p] == f) + poison[f] ->
#if LRU && !defined(NO_DRAIN)
			drain(f);
#endif
#ifndef NO_LOOK_WAIT
			lock_folio(f);
#ifndef NO_PUT_WAIT
			putting[f] == 0;
#endif
#endif
			atomic { n = refs[f]; user = gup[f] > 0 || poison[f] }
			if
			:: atomic {
				n - 1 > (pte[p] == f) + poison[f] ->
				assert(USER || !EAGAIN_CHECK || user)
			   }
#ifndef NO_LOOK_WAIT
			   unlock_folio(f);
#endif
#ifndef NO_INVALIDATE_FIRST
			   goto eagain
#else
			   goto unlock
#endif
			:: else
#ifndef NO_LOOK_WAIT
			   -> unlock_folio(f)
#endif
			fi;
			n = refs[f]
		   :: else
		   fi;
		   /* Whoever unmaps the page in between may have got a reference before. */
		   if
#ifndef NO_LOOK_REFS
		   :: n > 1 -> mapped = true
#else
		   :: pte[p] == f -> mapped = true
#endif
		   :: else
		   fi
		:: else
		fi
	}

#ifdef NO_INVALIDATE_FIRST
	invalidate_start(PAGES(lo, hi));
	zap_pages(PAGES(lo, hi) & ~was);
#endif

unmap:	for (p : lo .. hi) {
		if
#ifndef NO_UNMAP_HOST
		:: mapped -> unmap_host(p)
#endif
		:: else
		fi
	}

#ifndef NO_CHECK
check:	for (p : lo .. hi) {
		f = cache[p];
		if
		:: mapped && !attr[p] && f != NONE && USED(f) ->
#if LRU && !defined(NO_DRAIN)
			drain(f);
#endif
#ifndef NO_CHECK_LOCK
			lock_folio(f);
#ifndef NO_PUT_WAIT
			putting[f] == 0;
#endif
			if
#ifndef NO_CHECK_LOCKED
			:: atomic {
				USED(f) ->
				assert(USER || !EAGAIN_CHECK || gup[f] > 0 || poison[f])
			   }
			   unlock_folio(f);
			   goto eagain
#endif
			:: else -> unlock_folio(f)
			fi;
#endif
#if defined(NO_CHECK_LOCKED) || defined(NO_CHECK_LOCK)
			if
			:: atomic {
				USED(f) ->
				assert(USER || !EAGAIN_CHECK || gup[f] > 0 || poison[f]);
				goto eagain
			   }
			:: else
			fi
#endif
		:: else
		fi
	}
#endif

commit:
#if EAGAIN_CHECK
	looking = 0;
#endif
#ifdef NO_PREPARE
	/* Allocate page by page, after the first attributes have changed. */
	for (p : lo .. hi) {
		if
		:: attr[p] = true
		:: goto eagain
		fi
	}
#endif
#ifndef NO_RELEASE
	commit_private(lo, hi);
end:	invalidate_end();
#else
	/* The stores to the attributes become visible after that to the sequence. */
	seq_inc();
	commit_private(lo, hi);
	in_progress_dec();
#endif
	goto unlock;

eagain:
#if EAGAIN_CHECK
	looking = 0;
#endif
	assert(I3 || was == ((attr[lo] << lo) | (attr[hi] << hi)));
	invalidate_end();
unlock:	convert_unlock();
	put_file();
out:	skip
}
#endif

#if TO_SHARED + ZERO
proctype to_shared(bool zero)
{
	byte p, f, lo, hi, was;
	bool mode, some_shared, other_file;
#ifdef NO_CACHE_LOCK
	byte seen[NP] = NONE;
#endif

	atomic {
		choose_range(lo, hi);
#if MF
		mode = zero;
		if
		:: mode = true
		:: skip
		fi
#endif
	}
	get_file();
	convert_lock();
	check_poison(lo, hi);
	atomic {
		was = (attr[lo] << lo) | (attr[hi] << hi);
		some_shared = (was != PAGES(lo, hi))
	}

prepare:
	if
	:: !was && !zero -> goto unlock
	:: else
	fi;
	if
	:: skip
	:: goto unlock			/* ENOMEM */
	fi;

invalidate:
	invalidate_start(PAGES(lo, hi));
	zap_pages(was);

#ifdef NO_CACHE_LOCK
	/* The loads from the page cache aren't ordered after the stores to the attributes. */
	for (p : lo .. hi) { seen[p] = cache[p] }
#endif
#ifdef NO_COMMIT_FIRST
	for (p : lo .. hi) {
		f = cache[p];
		if
		:: f != NONE ->
			lock_folio(f);
			if
			:: ((was >> p) & 1) && !poison[f] -> rmp[f] = false
			:: else
			fi;
			unlock_folio(f)
		:: else
		fi
	}
#endif

commit:	for (p : lo .. hi) {
		d_step {
			attr[p] = false;
			assert(I2 || spte[p] == NONE || !spte_private[p]);
			if
			:: zero -> contents[p] = ZEROES; zeroing[p]++
			:: else
			fi
		}
	}

#ifdef NO_MAKE_SHARED_ORDER
	for (p : lo .. hi) {
		if
		:: zero && cache[p] != NONE -> uptodate[cache[p]] = false
		:: else
		fi
	}
#endif

make_shared:
	for (p : lo .. hi) {
#ifdef NO_CACHE_LOCK
		f = seen[p];
#else
		/* Cycling the lock of the page cache makes this load see what was added. */
		f = cache[p];
#endif
		if
		:: f != NONE ->
#ifndef NO_MAKE_SHARED_LOCK
			lock_folio(f);
#endif
#ifndef NO_COMMIT_FIRST
			if
			:: ((was >> p) & 1) && !poison[f] -> rmp[f] = false
			:: else
			fi;
#endif
			if
#ifdef NO_ZERO_MARK
			:: zero && ((was >> p) & 1) -> uptodate[f] = false
#else
			:: zero -> uptodate[f] = false
#endif
			:: else
			fi;
#ifndef NO_MAKE_SHARED_LOCK
			unlock_folio(f)
#endif
		:: else
		fi
	}

	/* The host gets in from here on. */
	for (p : lo .. hi) {
		assert(I4 || cache[p] == NONE || poison[cache[p]] || !rmp[cache[p]])
	}

end:	invalidate_end();
	convert_unlock();
	if
	:: !zero || !some_shared -> goto finish
	:: else
	fi;

	/*
	 * A batch is a page.  Dropping the lock and taking it again allows everything that
	 * downgrading it does.
	 */
zero_it:
	for (p : lo .. hi) {
#ifdef NO_ZERO_FINISH
		/* A fatal signal.  The call promises nothing about the rest. */
		if
		:: d_step {
			do
			:: p <= hi -> contents[p] = ANY; p++
			:: else -> break
			od
		   }
		   goto finish
		:: skip
		fi;
#endif
#ifndef NO_ZERO_READ_LOCK
		down_read();
#endif
		f = cache[p];
		if
#ifdef NO_ZERO_MARK
		:: f != NONE && !attr[p] && uptodate[f] ->
#else
		:: f != NONE && !attr[p] && !uptodate[f] ->
#endif
#ifndef NO_ZERO_LOCK
			lock_folio(f);
#endif
			if
#ifndef NO_ZERO_POISON
			:: poison[f]
#endif
#if !defined(NO_ZERO_RECHECK) && !defined(NO_ZERO_MARK)
			:: uptodate[f]
#endif
			:: else -> zero_folio(f)
			fi;
#ifndef NO_ZERO_LOCK
			unlock_folio(f)
#endif
		:: else
		fi;
#ifndef NO_ZERO_READ_LOCK
		up_read()
#endif
	}

finish:	atomic {
		if
		:: zero ->
			p = lo;
			do
			:: p <= hi -> zeroing[p]--; p++
			:: else -> break
			od
		:: else
		fi
	}
	goto put;
unlock:	convert_unlock();
put:	put_file();
out:	skip
}
#endif

/* ---- the guest */

/* A page whose memslot or file is gone counts as shared. */
#define ATTR(p)	(slot_file && attr[p])

#if VCPU
proctype vcpu()
{
	byte p, f, s, r, n;
	bool private, a, fresh, late;

choose:	atomic {
		if
		:: p = 0
#if NP > 1
		:: p = 1
#endif
		fi;
		if
		:: private = true
		:: private = false
		fi
	}

again:	if
	:: spte[p] != NONE && spte_private[p] == private -> goto access
	:: else
	fi;
fault:
	atomic {
		if
		:: !slot_valid -> goto done
		:: else -> srcu++; r = root; late = (looking >> p) & 1
		fi
	}
#ifndef NO_RMB
	s = seq;
	a = ATTR(p);
#else
	a = ATTR(p);
	s = seq;
#endif
	if
	:: a != private -> goto exit	/* KVM_EXIT_MEMORY_FAULT */
	:: else
	fi;
#ifndef NO_EARLY_RETRY
	if
	:: in_progress > 0 && (range >> p) & 1 -> goto retry
	:: else
	fi;
	if
	:: seq != s -> goto retry
	:: else
	fi;
#endif

	/* kvm_gmem_get_pfn() */
	atomic {
		assert(LIFE || !slot_freed);
		if
		:: closing || !slot_file -> goto exit
		:: else -> users++; assert(USER || !late || !((looking >> p) & 1))
		fi
	}
	get_folio(p, f);
	if
	:: f == NONE -> goto put
	:: else
	fi;
	if
	:: poison[f] -> unlock_folio(f); put_folio(f); goto put
	:: else
	fi;
	if
	:: !uptodate[f] -> zero_folio(f)
	:: else
	fi;
#if RMP
#ifndef NO_DECIDE_LOCKED
	a = ATTR(p);
#endif
	if
	:: a -> d_step {
			/* make_private().  A conversion to shared under way will undo it. */
			assert(LIFE || cache[p] == f);
			assert(I4 || attr[p] || in_progress > 0 || !bound);
			rmp[f] = true
		}
	:: else
	fi;
#endif
#ifdef NO_PUT_LAST
	put_folio(f);
#endif
	d_step {
		unlock_folio(f);
#if EAGAIN_CHECK && !defined(NO_PUT_AT_ONCE)
		putting[f]++
#endif
	}
	/* Waking those that wait for the lock writes to the folio. */
	assert(LIFE || refs[f] > 0);
#if !defined(NO_PUT_AT_ONCE) && !defined(NO_PUT_LAST)
	d_step {
		__put_folio(f);
#if EAGAIN_CHECK
		putting[f]--
#endif
	}
#endif
	users--;

#ifdef NO_RECHECK
	/* Checked without holding mmu_lock. */
	if
	:: RETRY(p, s) || STALE_ROOT(r) -> goto retry
	:: else
	fi;
#endif
install:
	atomic {
		!mmu_locked;
		if
#ifndef NO_RECHECK
		:: RETRY(p, s) || STALE_ROOT(r) ->
#ifdef NO_PUT_AT_ONCE
			put_folio(f);
#endif
			goto retry
#endif
		:: else ->
			d_step {
				spte[p] = f;
				spte_private[p] = private;
				assert(I2 || private == attr[p]);
				assert(I1 || !private || (pte[p] == NONE && held[f] == 0));
				assert(LIFE || !slot_freed);
				assert(I4 || data[f] != GARBAGE);
				assert(I4 || !RMP || rmp[f] == private);
				assert(LIFE || cache[p] == f);
				assert(I12 || !((contained >> p) & 1) || !poison[f])
			}
#ifdef NO_PUT_AT_ONCE
			put_folio(f)
#endif
		fi
	}
	srcu--;

access:	atomic {
		if
		:: spte[p] == NONE
		:: else ->
			f = spte[p];
			assert(LIFE || cache[p] == f);
			assert(I2 || spte_private[p] == attr[p]);
			assert(I4 || !RMP || rmp[f] == spte_private[p]);
			assert(I11 || (zeroing[p] && !attr[p]) || contents[p] == ANY || poison[f] ||
			       contents[p] == data[f]);
			data[f] = (spte_private[p] -> SECRET : OPEN);
			contents[p] = (zeroing[p] && !spte_private[p] -> ANY : data[f]);
			f = 0
		fi
	}
	goto done;

put:	users--;
exit:	srcu--;
	goto done;
retry:	srcu--;
	s = 0; f = 0; r = 0; a = 0; late = 0;
	goto again;

done:	n++;
	if
	:: n < ROUNDS -> s = 0; f = 0; r = 0; a = 0; late = 0; goto choose
	:: else
	fi
}
#endif

/* ---- the host */

inline host_access(p, f)
{
	/* A folio that was removed from the file is no longer the file's memory. */
	assert(I1 || !attr[p] || poison[f] || cache[p] != f);
	assert(I4 || !rmp[f] || poison[f]);
	assert(LIFE || refs[f] > 0);
	if
	:: cache[p] == f ->
		assert(I11 || zeroing[p] || contents[p] == ANY || poison[f] ||
		       contents[p] == data[f]);
		data[f] = OPEN;
		contents[p] = (zeroing[p] -> ANY : OPEN)
	:: else
	fi
}

#if HOST
proctype host()
{
	byte p, f;
	bool fresh;

	if
	:: p = 0
#if NP > 1
	:: p = 1
#endif
	fi;
	if
	:: pte[p] != NONE -> goto access
	:: else
	fi;
fault:
#ifndef NO_HOST_LOCK
	down_read();
#endif
	if
	:: attr[p] -> goto sigbus
	:: else
	fi;
#ifdef NO_HOST_GET_LOCKED
	up_read();
#endif
	get_folio(p, f);
#if !defined(NO_HOST_LOCK) && !defined(NO_HOST_GET_LOCKED)
	up_read();
#endif
	if
	:: f == NONE -> goto out
	:: else
	fi;
	if
	:: poison[f] -> unlock_folio(f); put_folio(f); goto out
	:: else
	fi;
	if
	:: !uptodate[f] -> zero_folio(f)
	:: else
	fi;
#ifdef NO_HOST_MAP_LOCKED
	unlock_folio(f);
#endif
map:	atomic {
		if
		:: pte[p] != NONE -> __put_folio(f)
		:: else ->
			pte[p] = f;
			assert(I1 || !attr[p]);
			assert(I4 || data[f] != GARBAGE);
			assert(I4 || !rmp[f] || poison[f]);
			assert(LIFE || cache[p] == f);
			assert(I12 || !((contained >> p) & 1) || !poison[f])
		fi
	}
#ifndef NO_HOST_MAP_LOCKED
	unlock_folio(f);
#endif

access:	atomic {
		if
		:: pte[p] != NONE -> f = pte[p]; host_access(p, f)
		:: else
		fi
	}
	goto out;
sigbus:
#ifndef NO_HOST_LOCK
	up_read();
#endif
out:	skip
}
#endif

/* GUP-fast, with a pin or a reference, which makes no difference. */
#if GUP
proctype gup_fast()
{
	byte p, f;

	if
	:: p = 0
#if NP > 1
	:: p = 1
#endif
	fi;
	atomic {
		f = pte[p];
		if
		:: f == NONE -> goto out
		:: else
		fi
	}
	atomic {
		if
		:: refs[f] == 0 -> goto out
		:: else -> refs[f]++; gup[f]++
		fi
	}
verify:	atomic {
		if
#ifndef NO_GUP_VERIFY
		:: pte[p] != f -> goto drop
#endif
		:: else -> held[f]++; assert(I1 || !attr[p] || poison[f] || cache[p] != f)
		fi
	}
access:	atomic { host_access(p, f) }
	held[f]--;
drop:	atomic { gup[f]--; __put_folio(f) }
out:	skip
}
#endif

/* munmap(), or MADV_DONTNEED. */
#if MUNMAP
proctype munmap_page()
{
	byte p;

	if
	:: p = 0
#if NP > 1
	:: p = 1
#endif
	fi;
	unmap_host(p)
}
#endif

/* memory_failure() and kvm_gmem_error_folio() */
#if MF
proctype memory_failure()
{
	byte p, f;

	if
	:: p = 0
#if NP > 1
	:: p = 1
#endif
	fi;
	/* The flag is set without holding any lock.  The reference is kept for good. */
	atomic {
		f = cache[p];
		if
		:: f == NONE -> goto out
		:: else
		fi;
		poison[f] = true;
		refs[f]++
	}
	lock_folio(f);
	if
	:: cache[p] != f -> unlock_folio(f); goto out	/* truncated */
	:: else
	fi;
	d_step {
		if
		:: pte[p] == f -> __put_folio(f); pte[p] = NONE
		:: else
		fi
	}
#ifndef NO_MF_UNLOCK
	unlock_folio(f);
#endif
#ifndef NO_MF_LOCK
	down_read();
#endif
#ifndef NO_MF_INVALIDATE
	invalidate_start(1 << p);
#endif
	zap(p);
#ifndef NO_MF_INVALIDATE
	invalidate_end();
#endif
#ifndef NO_MF_LOCK
	up_read();
#endif
#ifndef NO_MF_UNLOCK
	lock_folio(f);
#endif
	d_step {
		if
		:: cache[p] == f ->
			contained = contained | (1 << p);
			assert(I12 || spte[p] != f);
			assert(I12 || pte[p] != f)
		:: else
		fi
	}
	unlock_folio(f);
out:	skip
}
#endif

/* ---- hole punching, closing the file, deleting the memslot */

#if PUNCH
proctype punch_hole()
{
	byte p, f;

#ifndef NO_PUNCH_LOCK
	down_write();
#endif
#ifndef NO_PUNCH_INVALIDATE
	invalidate_start(PAGES(0, NP - 1));
#endif
	for (p : 0 .. NP - 1) { zap(p) }
	for (p : 0 .. NP - 1) {
		/* The page cache's reference is still there: another hole punch excludes this one. */
		f = cache[p];
		if
		:: f != NONE ->
#ifdef NO_PUNCH_UNMAP_LOCKED
			unmap_host(p);
#endif
			lock_folio(f);
#ifndef NO_PUNCH_UNMAP_LOCKED
			unmap_host(p);
#endif
			d_step {
				cache[p] = NONE;
				contents[p] = ZEROES;
				assert(LIFE || pte[p] != f);
				assert(LIFE || spte[p] != f)
			}
#ifndef NO_RECLAIM
			rmp[f] = false;
#endif
			unlock_folio(f);
			put_folio(f)
		:: else
		fi
	}
#ifndef NO_PUNCH_INVALIDATE
	invalidate_end();
#endif
#ifndef NO_PUNCH_LOCK
	up_write()
#endif
}
#endif

/* The last reference to the file is gone: neither conversions nor faults use it. */
#if CLOSE
proctype close_file()
{
	byte p;

	closing = true;
	users == 0;
	down_write();
	slot_file = false;
#ifndef NO_CLOSE_INVALIDATE
	invalidate_start(PAGES(0, NP - 1));
#endif
	for (p : 0 .. NP - 1) { zap(p) }
#ifndef NO_CLOSE_INVALIDATE
	invalidate_end();
#endif
	atomic {
		bound = false;
		p = 0;
		do
		:: p < NP -> assert(LIFE || spte[p] == NONE); p++
		:: else -> break
		od
	}
	up_write()
}
#endif

#if UNBIND
proctype delete_memslot()
{
	byte p;

	slot_valid = false;
	/* All roots become obsolete. */
	d_step {
		!mmu_locked;
		root++;
		p = 0;
		do
		:: p < NP -> SPTE_NONE(p); p++
		:: else -> break
		od
	}
#ifndef NO_SRCU
	srcu == 0;
#endif
#ifndef NO_UNBIND_LOCK
	down_write();
#endif
	d_step {
		bound = false;
		slot_file = false;
		p = 0;
		do
		:: p < NP -> assert(LIFE || spte[p] == NONE); p++
		:: else -> break
		od
	}
#ifndef NO_UNBIND_LOCK
	up_write();
#endif
	slot_freed = true
}
#endif

/* ---- */

#define FOLIO(p, up, bytes, private)			\
	cache[p] = p * FPP; refs[p * FPP] = 1;		\
	uptodate[p * FPP] = up; data[p * FPP] = bytes;	\
	rmp[p * FPP] = (private && RMP)

init {
	byte p, f;

	atomic {
		for (p : 0 .. NP - 1) {
			if
			:: skip					/* shared, not allocated */
			:: FOLIO(p, false, GARBAGE, false)	/* shared, allocated */
			:: FOLIO(p, true, OPEN, false);		/* shared, mapped by both */
			   contents[p] = OPEN;
			   pte[p] = p * FPP; refs[p * FPP]++;
			   spte[p] = p * FPP
			:: attr[p] = true			/* private, not allocated */
			:: attr[p] = true;			/* private, used by the guest */
			   FOLIO(p, true, SECRET, true);
			   contents[p] = SECRET;
			   if
			   :: spte[p] = p * FPP; spte_private[p] = true
			   :: skip
			   fi
			fi
		}
		p = 0;
#if TO_PRIVATE > 0
		run to_private();
#endif
#if TO_PRIVATE > 1
		run to_private();
#endif
#if TO_SHARED > 0
		run to_shared(false);
#endif
#if ZERO > 0
		run to_shared(true);
#endif
#if ZERO > 1
		run to_shared(true);
#endif
#if VCPU > 0
		run vcpu();
#endif
#if VCPU > 1
		run vcpu();
#endif
#if HOST > 0
		run host();
#endif
#if HOST > 1
		run host();
#endif
#if GUP > 0
		run gup_fast();
#endif
#if MUNMAP > 0
		run munmap_page();
#endif
#if MF > 0
		run memory_failure();
#endif
#if PUNCH > 0
		run punch_hole();
#endif
#if CLOSE > 0
		run close_file();
#endif
#if UNBIND > 0
		run delete_memslot();
#endif
	}

	/* All of them have ended. */
final:	atomic {
		_nr_pr == 1;
		assert(BALANCE || in_progress == 0);
		assert(BALANCE || (!writer && readers == 0 && users == 0 && srcu == 0));
		p = 0;
		do
		:: p < NP ->
			f = cache[p];
			assert(I1 || !attr[p] || pte[p] == NONE);
			assert(LIFE || pte[p] == NONE || pte[p] == f);
			assert(LIFE || spte[p] == NONE || spte[p] == f);
			assert(I2 || spte[p] == NONE || spte_private[p] == attr[p]);
			if
			:: f == NONE ->
				assert(I11 || contents[p] == ZEROES || contents[p] == ANY)
			:: else ->
				assert(LIFE || !locked[f]);
				assert(I4 || attr[p] || !rmp[f] || poison[f]);
				assert(I11 || contents[p] == ANY || poison[f] ||
				       contents[p] == (uptodate[f] -> data[f] : ZEROES))
			fi;
			p++
		:: else -> break
		od
	}
}
