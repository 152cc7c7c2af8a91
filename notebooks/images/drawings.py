# Draws 10_events.svg and 12_norms.svg: python3 notebooks/images/drawings.py
from pathlib import Path
R = str(Path(__file__).parent) + '/'
def start(W,H): return [f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{H}" viewBox="0 0 {W} {H}" font-family="sans-serif" font-size="14">','<rect width="100%" height="100%" fill="white"/>']
o=start(900,360)
def box(x,y,w,h,t,fill):
    o.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="#333"/><text x="{x+10}" y="{y+20}" font-weight="bold">{t}</text>')
box(10,10,880,340,'fit','#ffffff'); box(130,45,630,290,'each epoch','#f2f2f2')
box(265,75,385,105,'each training batch','#dddddd'); box(265,220,385,100,'each validation batch','#e6e6e6')
def ev(x,y,t): o.append(f'<circle cx="{x}" cy="{y}" r="6"/><text x="{x}" y="{y+22}" text-anchor="middle" font-size="12">{t}</text>')
def work(x,y,t): o.append(f'<text x="{x}" y="{y-10}" text-anchor="middle" font-size="12" font-style="italic" fill="#333">{t}</text>')
def arr(x1,x2,y): o.append(f'<line x1="{x1+8}" y1="{y}" x2="{x2-12}" y2="{y}" stroke="#333"/><path d="M{x2-14} {y-4} L{x2-6} {y} L{x2-14} {y+4} z" fill="#333"/>')
y,z=138,284
for x,t in zip([60,192,312,412,512,607],['before_fit','before_epoch','before_batch','after_loss','after_backward','after_batch']): ev(x,y,t)
for a,b in ((60,192),(192,271),(312,412),(412,512),(512,607)): arr(a,b,y)
work(362,y,'forward'); work(462,y,'backward'); work(560,y,'step')
for x,t in ((312,'before_batch'),(412,'after_loss'),(607,'after_batch'),(705,'after_epoch'),(825,'after_fit')): ev(x,z,t)
for a,b in ((312,412),(412,607),(642,705),(705,825)): arr(a,b,z)
work(362,z,'forward')
o.append('<line x1="457" y1="180" x2="457" y2="212" stroke="#333"/><path d="M453 211 L457 219 L461 211 z" fill="#333"/>')
o.append('</svg>'); open(R+'10_events.svg','w').write('\n'.join(o)+'\n')
o=start(900,300)
S=34; n,c=4,6
def panel(x0,title,sub,key):
    o.append(f'<text x="{x0+c*S/2}" y="24" text-anchor="middle" font-weight="bold">{title}</text><text x="{x0+c*S/2}" y="44" text-anchor="middle" font-size="12">{sub}</text>')
    for i in range(n):
        for j in range(c):
            fill='#444444' if key(i,j)==key(0,0) else '#f2f2f2'
            o.append(f'<rect x="{x0+j*S}" y="{80+i*S}" width="{S}" height="{S}" fill="{fill}" stroke="#888"/>')
    o.append(f'<text x="{x0+c*S/2}" y="72" text-anchor="middle" font-size="12">channels</text><text x="{x0-10}" y="{80+n*S/2}" text-anchor="middle" font-size="12" transform="rotate(-90 {x0-10} {80+n*S/2})">images</text>')
panel(50,'batch norm','a channel of all images',lambda i,j:j)
panel(345,'layer norm','all channels of an image',lambda i,j:i)
panel(640,'group norm, 2 groups','half the channels of an image',lambda i,j:(i,j//3))
o.append('<text x="450" y="262" text-anchor="middle" font-size="13">Each square is one channel of one image: all its h · w pixels.</text><text x="450" y="284" text-anchor="middle" font-size="13">The dark squares share one mean and one standard deviation.</text></svg>')
open(R+'12_norms.svg','w').write('\n'.join(o)+'\n')
